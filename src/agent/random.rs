/// Draws from the operating system: a seeded generator could repeat itself on the next machine. Panics where the system has no
/// random numbers, like the standard library's maps.
pub fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
