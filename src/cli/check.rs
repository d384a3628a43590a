use clap::Args;

use crate::checks::Finding;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CheckFlags {
    /// Ask no server
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print what is in force, and where each value comes from
    #[arg(long, conflicts_with = "offline")]
    pub(crate) print_config: bool,
}

/// Returns the finding that the configuration is valid, or that the usual file, `absent`, does not exist.
pub(crate) fn valid_configuration(absent: Option<&str>) -> Finding {
    let text = match absent {
        Some(file) => format!("there is no {file}: flags, the environment and defaults are in force"),
        None => "is valid".to_owned(),
    };
    Finding::ok("configuration", text)
}
