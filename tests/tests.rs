//! All integration tests, in one program: OpenSSL and librdkafka are linked once.

mod support;

mod advertised_listeners;
mod counters;

mod agent_commands;
mod agent_journal;
mod agent_links;
mod agent_status;
mod agent_ticks;
mod agent_toolbox;

mod closed_pipes;
mod containers;

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

mod docs;
mod events_and_samples;
mod faults;
mod figures;
mod first_hour;
mod fixtures;
mod formats;
mod interop;
mod managed_postgres;
mod missing_files;

mod pipeline;
mod publishing;
mod rates;
mod replay;
mod samples;

mod secure_kafka;
mod secure_postgres;
mod secure_rights;
mod upgrades;
mod watchdogs;

mod tidy;
