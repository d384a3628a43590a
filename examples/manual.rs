//! Writes man pages and shell completions of both programs, made from the definitions of their command lines:
//!
//! ```text
//! cargo run --example manual -- DIRECTORY DATE     man1/*.1 of that date, bash/*, zsh/*, fish/*
//! ```
//!
//! An example, and so built with the dependencies of the tests: the programs need none of what makes pages.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(date)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("usage: manual DIRECTORY YYYY-MM-DD".into());
    };
    for subdirectory in ["man1", "bash", "zsh", "fish"] {
        fs::create_dir_all(directory.join(subdirectory))?;
    }
    for program in [
        highwater::agent::cli::command(),
        #[cfg(feature = "consumer")]
        highwater::consumer::cli::command(),
    ] {
        completions(&mut program.clone(), &directory)?;
        let mut program = program.disable_help_subcommand(true);
        program.build();
        pages(&program, &date, &directory.join("man1"))?;
    }
    Ok(())
}

/// Writes the completions under the names by which each shell finds them.
fn completions(program: &mut Command, directory: &Path) -> Result<(), Box<dyn Error>> {
    let name = program.get_name().to_owned();
    for (shell, file) in [
        (Shell::Bash, format!("bash/{name}")),
        (Shell::Zsh, format!("zsh/_{name}")),
        (Shell::Fish, format!("fish/{name}.fish")),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, program, &name, &mut script);
        let script = String::from_utf8(script)?;
        // For bash, a hyphen in the program's name becomes two things, and flags of commands are not found (clap-rs/clap#6421).
        let script = script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
        fs::write(directory.join(file), script)?;
    }
    Ok(())
}

/// Writes the page of a command and those of its subcommands.
fn pages(command: &Command, date: &str, directory: &Path) -> Result<(), Box<dyn Error>> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    fs::write(directory.join(format!("{name}.1")), page(command, name, date)?)?;
    let mut below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.try_for_each(|command| pages(command, date, directory))
}

fn page(command: &Command, name: &str, date: &str) -> Result<String, Box<dyn Error>> {
    // The notes come in a form of their own.
    let bare = command.clone().after_help("").version(env!("CARGO_PKG_VERSION"));
    let man = Man::new(bare).title(name.to_uppercase()).section("1").date(date).manual("Highwater").source(SOURCE);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let (prose, examples) = notes(command);
    section(&prose, &mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    section(&examples, &mut page)?;
    section(&lists(name), &mut page)?;
    // Before the values of a flag stand two line breaks and an empty line, of which mandoc skips the breaks.
    Ok(String::from_utf8(page)?.replace(".br\n\n.br\n", ".sp\n"))
}

const SOURCE: &str = concat!("highwater ", env!("CARGO_PKG_VERSION"));

fn section(roff: &Roff, page: &mut Vec<u8>) -> std::io::Result<()> {
    let text = roff.render();
    // Each rendering would define the same apostrophe again.
    let text = text.lines().filter(|line| !line.starts_with(".ie") && !line.starts_with(".el"));
    page.extend(text.flat_map(|line| [line, "\n"]).collect::<String>().bytes());
    Ok(())
}

/// Divides the text below a command's help: paragraphs are filled, lines that are indented keep their columns, and examples get a
/// section of their own.
fn notes(command: &Command) -> (Roff, Roff) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (prose, examples) = text.split_once("Examples:\n").unwrap_or((&text, ""));
    let mut sections = (Roff::new(), Roff::new());
    filled(prose, false, &mut sections.0);
    if !examples.is_empty() {
        sections.1.control("SH", ["EXAMPLES"]);
        filled(examples, true, &mut sections.1);
    }
    sections
}

/// Adds paragraphs, and tables as they are: these may be as wide as a terminal, and so begin further to the left than text does. A
/// section begins with a paragraph anyway.
fn filled(text: &str, mut is_begun: bool, roff: &mut Roff) {
    for block in text.split("\n\n") {
        let mut was_table = None;
        for line in block.lines().filter(|line| !line.is_empty()) {
            let is_table = line.starts_with("  ");
            if was_table != Some(is_table) {
                if was_table == Some(true) {
                    roff.control("fi", []);
                }
                if !std::mem::take(&mut is_begun) {
                    roff.control("PP", []);
                }
                if is_table {
                    roff.control("in", ["2n"]).control("nf", []);
                }
            }
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            was_table = Some(is_table);
        }
        if was_table == Some(true) {
            roff.control("fi", []);
        }
    }
}

/// Sections that no definition of a command line has: exit codes, signals and files.
fn lists(name: &str) -> Roff {
    let mut roff = Roff::new();
    let (program, is_agent) = match name.strip_prefix("highwater-agent") {
        Some(_) => ("highwater-agent", true),
        None => ("highwater-consumer", false),
    };
    let mut list = |title: &str, items: &[(&str, &str)]| {
        roff.control("SH", [title]);
        for (term, text) in items {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*text)]);
        }
    };
    if name == format!("{program}-run") {
        let signals = [
            ("SIGTERM, SIGINT", "Stop in an orderly way."),
            ("SIGHUP", "Read the configuration again; one that is wrong is reported and changes nothing."),
            ("SIGUSR1", "Send what waits for Kafka now."),
        ];
        list("SIGNALS", if is_agent { &signals } else { &signals[..2] });
    }
    let status = [
        ("0", "The command was carried out, or its answer is yes."),
        ("1", "It failed, or its answer is no."),
        ("2", "The command line is wrong."),
        ("69", "A service that was needed could not be reached."),
        ("78", "The configuration is wrong."),
    ];
    list("EXIT STATUS", &status);
    if name == program || name == format!("{program}-run") {
        let (file, state) = match is_agent {
            true => ("/etc/highwater/agent.toml", "/var/lib/highwater"),
            false => ("/etc/highwater/consumer.toml", "/var/lib/highwater-consumer"),
        };
        let kept = match is_agent {
            true => "The journal: events that Kafka has not acknowledged, and open breaches.",
            false => "The database, if it is a SQLite file.",
        };
        list("FILES", &[(file, "The configuration. Its comments explain each key."), (state, kept)]);
        let key = "Overrides a key of the configuration, here of [kafka].";
        list("ENVIRONMENT", &[("HIGHWATER_KAFKA__BROKERS", key)]);
    }
    let other = if is_agent { "highwater-consumer" } else { "highwater-agent" };
    roff.control("SH", ["SEE ALSO"]);
    if name == program {
        roff.text([bold(other), roman("(1)")]);
    } else {
        roff.text([bold(program), roman("(1), "), bold(other), roman("(1)")]);
    }
    roff
}
