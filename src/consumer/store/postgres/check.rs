//! Check of a PostgreSQL database, which changes nothing: version, encoding, rights, tables, locks and clock.

use chrono::{DateTime, TimeDelta, Utc};
use postgres::Client;
use postgres::types::Type;

use super::address::Address;
use super::session::Support;
use super::{migrations, partitions, pooler, quoted};
use crate::consumer::store::StoreError;
use crate::process::checks::Finding;

const ABOUT: &str = "database";

const CLOCKS_APART_MAX: TimeDelta = TimeDelta::seconds(10);

struct QuotedNames {
    role: String,
    database: String,
    schema: String,
}

pub(in crate::consumer::store) fn check(address: &Address, now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = ask(address, now, &mut findings) {
        findings.push(Finding::failed(ABOUT, error));
    }
    findings
}

/// Asks without named statements, which a pooler's session may hold already: a check that cleared them would change something.
fn ask(address: &Address, now: DateTime<Utc>, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut client = address.connect("highwater-consumer/check")?;
    findings.extend(server(&mut client, address, now)?);
    pooler::refuse(address, "highwater-consumer/check")?;
    let wanted = address.schema();
    let row = client.query_typed_one(
        "SELECT quote_ident(current_user), quote_ident(current_database()), coalesce($1::text, current_schema()),
                (SELECT oid FROM pg_namespace WHERE nspname = coalesce($1::text, current_schema())),
                has_database_privilege(current_database(), 'CREATE')",
        &[(&wanted, Type::TEXT)],
    )?;
    let (schema, found, may_create): (Option<String>, Option<u32>, bool) = (row.get(2), row.get(3), row.get(4));
    let Some(schema) = schema else {
        let why = "the search_path of the role has no schema that exists; set store.schema = \"highwater\"";
        findings.push(Finding::failed(ABOUT, why));
        return Ok(());
    };
    let names = QuotedNames { role: row.get(0), database: row.get(1), schema: quoted(&schema) };
    let QuotedNames { role, database, schema } = &names;
    let Some(oid) = found else {
        findings.push(if may_create {
            Finding::ok(ABOUT, format!("schema {schema} is missing; `run` creates it"))
        } else {
            Finding::failed(
                ABOUT,
                format!("there is no schema {schema}: as the owner: GRANT CREATE ON DATABASE {database} TO {role}"),
            )
        });
        return Ok(());
    };
    if address.schema().is_some() {
        client.batch_execute(&format!("SET search_path = {schema}"))?;
    }
    findings.extend(tables(&mut client, &names, oid)?);
    Ok(())
}

fn server(client: &mut Client, address: &Address, now: DateTime<Utc>) -> Result<Vec<Finding>, StoreError> {
    let row = client.query_typed_one(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                current_setting('server_encoding'), current_setting('transaction_read_only') = 'on', clock_timestamp()",
        &[],
    )?;
    let (version, number, encoding): (&str, i32, &str) = (row.get(0), row.get(1), row.get(2));
    let mut findings = vec![match Support::of(version, number) {
        Support::TooOld(why) => Finding::failed(ABOUT, format!("{address} {why}")),
        Support::Untested(why) => Finding::warning(ABOUT, format!("{address} {why}")),
        Support::Tested => Finding::ok(ABOUT, format!("{address} answers: PostgreSQL {version}")),
    }];
    if address.trusts_any_server() {
        let why = "sslmode=require encrypts, and takes any server for the right one: set sslmode=verify-full in store.url, and \
                   sslrootcert if the certificate is not of a CA that this system knows";
        findings.push(Finding::warning(ABOUT, why));
    }
    if encoding != "UTF8" {
        findings.push(Finding::failed(
            ABOUT,
            format!("its encoding is {encoding}; create another one: CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8'"),
        ));
    }
    if row.get(3) {
        let why = "it is read-only: the server is a standby, or set to default_transaction_read_only; name the primary in store.url";
        findings.push(Finding::failed(ABOUT, why));
    }
    findings.extend(clock(row.get::<_, DateTime<Utc>>(4) - now));
    Ok(findings)
}

fn clock(apart: TimeDelta) -> Option<Finding> {
    let seconds = apart.num_seconds();
    let why = format!("the clock of the database is {seconds} s from that of this host; one of them is wrong");
    (apart.abs() > CLOCKS_APART_MAX).then(|| Finding::warning("clock", why))
}

fn room_for_tables(client: &mut Client, names: &QuotedNames, schema_oid: u32) -> Result<Finding, StoreError> {
    let QuotedNames { role, schema, .. } = names;
    let may = "SELECT has_schema_privilege($1::oid, 'CREATE') AND has_schema_privilege($1::oid, 'USAGE')";
    if !client.query_typed_one(may, &[(&schema_oid, Type::OID)])?.get::<_, bool>(0) {
        let grant = migrations::grant(client)?;
        return Ok(Finding::failed(ABOUT, format!("role {role} may not create tables in {schema}: {grant}")));
    }
    Ok(match migrations::conflicting_relation(client, schema_oid)? {
        Some(name) => {
            let there = format!("relation {} already exists", quoted(&name));
            Finding::failed(ABOUT, migrations::of_another_program(schema, &there))
        }
        None => Finding::ok(ABOUT, format!("schema {schema} has no tables yet; `run` creates them")),
    })
}

fn tables(client: &mut Client, names: &QuotedNames, schema_oid: u32) -> Result<Vec<Finding>, StoreError> {
    let QuotedNames { role, schema, .. } = names;
    let (taken, ours) = (migrations::applied_version(client)??, migrations::version());
    if taken == 0 {
        return Ok(vec![room_for_tables(client, names, schema_oid)?]);
    }
    let mut findings = vec![if taken == ours {
        Finding::ok(ABOUT, format!("schema {schema} has the tables of this version"))
    } else {
        let why = format!("schema {schema} has the tables of an older version; `run` brings them up to date");
        Finding::warning(ABOUT, why)
    }];
    // Creating a partition needs the rights of the table's owner, as retention does.
    let row = client.query_typed_one(
        "SELECT pg_has_role(c.relowner, 'USAGE'), quote_ident(pg_get_userbyid(c.relowner))
         FROM pg_class c WHERE c.oid = to_regclass('events')",
        &[],
    )?;
    if !row.get::<_, bool>(0) {
        let owner: &str = row.get(1);
        findings.push(Finding::failed(
            ABOUT,
            format!(
                "role {role} may not add partitions to the tables of {owner}: as a superuser: GRANT {owner} TO {role}"
            ),
        ));
    }
    let mut transaction = client.transaction()?;
    let locks = partitions::locks(&mut transaction)?;
    findings.push(match locks.warning() {
        Some(warning) => Finding::warning("locks", warning),
        None => Finding::ok("locks", locks),
    });
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_from_this_hosts_is_a_warning() {
        let seconds = |seconds| clock(TimeDelta::seconds(seconds));
        assert_eq!((seconds(0), seconds(10), seconds(-10)), (None, None, None));
        for (apart, says) in [(3_600, "is 3600 s from"), (-11, "is -11 s from")] {
            let finding = seconds(apart).expect("it is far");
            assert!(finding.about == "clock" && finding.text.contains(says), "{finding}");
        }
    }
}
