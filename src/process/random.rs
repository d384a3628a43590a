/// Draws from the operating system: a seeded generator could repeat itself on the next machine. Panics without random numbers.
pub fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
