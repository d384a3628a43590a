//! Integration tests, in one program: OpenSSL and librdkafka are linked once. A module keeps one promise, and this page lists them.
//!
//! # The agent
//!
//! - `counters`: every source of counters counts as the kernel does, while links come, go and are renamed.
//! - `agent_ticks`: no broker, name or tear-down delays a reading.
//! - `agent_links`: the events of a real link say what it carried and what became of it.
//! - `rates`: windows of rates are the sums of the samples, and those that were lost are declared.
//! - `agent_journal`: events that the journal accepted arrive, whatever happens to the agent and to the broker.
//! - `agent_status`: `status` shows how an agent is, whether it runs, is stuck or was killed.
//! - `agent_commands`: a mistake on the command line or in the file is one line that names the remedy.
//! - `agent_toolbox`: `topics`, `simulate` and `replay` do on a real Kafka what they say.
//! - `replay`: a recorded series has the breaches that are in it, however it was written down.
//!
//! # Kafka and the wire
//!
//! - `publishing`: events that Kafka refuses or does not acknowledge are kept, and the cause is reported.
//! - `advertised_listeners`: an address that the broker gives and nobody can reach is named by every command.
//! - `formats`: JSON, Avro and Protobuf become the same rows, with a schema registry and without.
//! - `interop`: clients of others read our messages, and their messages are stored.
//! - `samples`: a recorded series becomes a topic, and the topic a table, each sample once.
//! - `secure_kafka`: with wrong certificates or passwords nothing is sent, and everything once they are mended.
//! - `secure_rights`: the ACLs of `docs/secure.md` are the least that everything works with.
//!
//! # The consumer and its stores
//!
//! - `consumer_kafka`: every event of a topic is in the table once, whatever happens in between.
//! - `events_and_samples`: trouble with one topic holds up no other.
//! - `consumer_reload`: SIGHUP brings in another configuration, and a wrong one changes nothing.
//! - `consumer_store`: SQLite and PostgreSQL store, count, declare and forget alike; a file for each of these promises.
//! - `consumer_database`: a database that is busy, locked, short of rights or oddly set up loses no event; a file for each trouble.
//! - `consumer_rates`: hours and days are made of all their windows, each once, and are published.
//! - `consumer_totals`: every byte over a limit is counted once, in the log, the table and the command.
//! - `consumer_commands`: commands that read the store answer alike on both databases; a file for each command or promise.
//! - `consumer_reports`: questions about events, breaches, rates and agents have the right answers.
//! - `consumer_questions`: an index serves the usual queries.
//! - `consumer_plots`: a picture shows what is stored, and what is missing from it.
//! - `consumer_topic`: `tail` shows a topic as it is, and `lag` how much of it is not stored.
//! - `secure_postgres`: with a wrong certificate or password nothing is stored, and everything once it is mended.
//! - `managed_postgres`: the plan of a provider is enough: few rights, few connections, short time-outs, poolers, old versions.
//!
//! # Both ends together
//!
//! - `pipeline`: from this host's counters to rows, every accepted event is there once.
//! - `figures`: a breach has the same figures in the log, a replay, the events and the rows.
//! - `faults`: whatever breaks, nothing is lost, doubled or invented; a file for each part that breaks.
//! - `watchdogs`: a program that is stuck says so or is ended.
//! - `fixtures`: later versions go on with what earlier ones wrote.
//! - `upgrades`: a newer version's data are refused and not changed, and its events are stored.
//!
//! # First contact
//!
//! - `first_hour`: a new user's commands lead to a breach in the database, with no file edited.
//! - `missing_files`: a certificate or secret that is not there yet is named, and waited for.
//! - `closed_pipes`: a closed pipe ends no command in a panic.
//! - `compose`: each service of docker/compose.apps.yaml does what it is for, with its own arguments.
//! - `containers`: the files in `docker/` fit together, and the dashboard shows what is stored.
//! - `docs`: the queries of the pages run, and answer as their pages show.
//!
//! # The project
//!
//! - `tidy`: the source keeps the rules of CONTRIBUTING.md that a program can check.
//!
//! # Folders and scripts
//!
//! - `run` is the one command that passes all tests; `release` makes the packages of all targets, and tests them.
//! - `support/` has the parts that tests share (servers, programs as processes, events), their own tests, and the scripts that `run`
//!   and `release` call.
//! - `data/` has recorded series, and what each release wrote.
//! - `faults/results/` has a line for each round of the long run of the faults.
//! - `mutants/` has patches, each of which takes a guard out of the programs; the tests have to find it.
//! - `interop/` has Python programs that are clients of others.
//! - `tidy/` has what reads the imports of the source.

mod support;

mod agent_commands;
mod agent_journal;
mod agent_links;
mod agent_status;
mod agent_ticks;
mod agent_toolbox;
mod counters;
mod rates;
mod replay;

mod advertised_listeners;
mod formats;
mod interop;
mod publishing;
mod samples;
mod secure_kafka;
mod secure_rights;

mod consumer_commands;
mod consumer_database;
mod consumer_kafka;
mod consumer_plots;
mod consumer_questions;
mod consumer_rates;
mod consumer_reload;
mod consumer_reports;
mod consumer_store;
mod consumer_topic;
mod consumer_totals;
mod events_and_samples;
mod managed_postgres;
mod secure_postgres;

mod faults;
mod figures;
mod fixtures;
mod pipeline;
mod upgrades;
mod watchdogs;

mod closed_pipes;
mod compose;
mod containers;
mod docs;
mod first_hour;
mod missing_files;

mod tidy;
