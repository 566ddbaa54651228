//! Tables made and widened from the schema: what has to be done is a pure rule over what is there and what is wanted;
//! doing it is one transaction under an advisory lock, so that two bridges do not do it at once.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::columns::{Column, ColumnType, Fit, OWN, identifier, quote};
use super::failure::Failure;
use crate::config::Ddl;

/// Widening may rewrite a table, which takes longer than a statement may otherwise.
const DDL_TIMEOUT: &str = "5min";

/// Any number, as long as every bridge takes the same: one change of tables at a time in a database.
const ADVISORY_LOCK: i64 = 0x686f_6f6b_6272_6467;

/// A table by its quoted, bounded name.
pub(super) fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote(&identifier(schema)), quote(&identifier(table)))
}

/// The columns of a table that is there, with their types as `format_type` gives them; `None`: no such table.
pub(super) type Existing = Option<BTreeMap<String, String>>;

/// The statements that make a table hold `wanted`, none where it does; or every reason why it cannot.
pub(super) fn plan(ddl: Ddl, table: &str, existing: &Existing, wanted: &[Column]) -> Result<Vec<String>, Vec<String>> {
    let own = OWN.iter().map(|(name, kind)| (*name, *kind));
    let all = wanted.iter().map(|column| (column.name.as_str(), column.kind)).chain(own);
    let Some(existing) = existing else {
        if ddl == Ddl::Manual {
            return Err(vec![format!("table {table} does not exist, and ddl is manual")]);
        }
        let columns: Vec<_> = all.map(|(name, kind)| declare(name, kind, true)).collect();
        return Ok(vec![format!("CREATE TABLE {table} ({})", columns.join(", "))]);
    };
    let mut changes = Vec::new();
    let mut problems = Vec::new();
    for (name, kind) in all {
        match existing.get(name).map(|is| (is, kind.fit_into(is))) {
            Some((_, Fit::Fits)) => {}
            None if ddl == Ddl::Evolve => {
                changes.push(format!("ADD COLUMN IF NOT EXISTS {}", declare(name, kind, false)));
            }
            None => problems.push(format!("column {name} ({kind}) is missing")),
            Some((_, Fit::Widen)) if ddl == Ddl::Evolve => {
                changes.push(format!("ALTER COLUMN {} TYPE {kind}", quote(name)));
            }
            Some((is, _)) => problems.push(format!("column {name} is {is}, the schema asks for {kind}")),
        }
    }
    if !problems.is_empty() {
        return Err(problems.into_iter().map(|problem| format!("table {table}: {problem}")).collect());
    }
    Ok(if changes.is_empty() { vec![] } else { vec![format!("ALTER TABLE {table} {}", changes.join(", "))] })
}

/// `new_table`: only a table without rows can demand a delivery id of each.
fn declare(name: &str, kind: ColumnType, new_table: bool) -> String {
    let constraint = match (name, new_table) {
        ("hb_delivery_id", true) => " NOT NULL UNIQUE",
        ("hb_delivery_id", false) => " UNIQUE",
        _ => "",
    };
    format!("{} {kind}{constraint}", quote(name))
}

/// One INSERT for any number of rows: a parameter for each column, holding that column of all rows as text.
pub(super) fn insert(table: &str, wanted: &[Column]) -> String {
    let own = OWN.iter().map(|(name, kind)| (*name, *kind));
    let (mut names, mut casts, mut arrays, mut aliases) = (vec![], vec![], vec![], vec![]);
    for (at, (name, kind)) in wanted.iter().map(|column| (column.name.as_str(), column.kind)).chain(own).enumerate() {
        names.push(quote(name));
        casts.push(format!("c{at}::{kind}"));
        arrays.push(format!("${}::text[]", at + 1));
        aliases.push(format!("c{at}"));
    }
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM unnest({}) AS r({}) ON CONFLICT (hb_delivery_id) DO NOTHING \
         RETURNING hb_offset::bigint",
        names.join(", "),
        casts.join(", "),
        arrays.join(", "),
        aliases.join(", ")
    )
}

/// The offsets table's definition. `receipts_from` is where the reading of receipts starts once there are any.
fn offsets_definition(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (sink text NOT NULL, topic text NOT NULL, partition integer NOT NULL, \
         next_offset bigint NOT NULL, epoch bigint NOT NULL, receipts_from bigint, \
         PRIMARY KEY (sink, topic, partition))"
    )
}

/// Makes a table hold the wanted columns, or says why it cannot.
pub(super) async fn ensure(client: &Client, ddl: Ddl, table: &str, wanted: &[Column]) -> Result<(), Failure> {
    change(client, table, |existing| plan(ddl, table, existing, wanted)).await
}

/// Makes the offsets table where there is none.
pub(super) async fn ensure_offsets(client: &Client, ddl: Ddl, table: &str) -> Result<(), Failure> {
    change(client, table, |existing| match (existing, ddl) {
        (Some(_), _) => Ok(vec![]),
        (None, Ddl::Manual) => {
            let definition = offsets_definition(table);
            Err(vec![format!("table {table} does not exist, and ddl is manual; hint: {definition}")])
        }
        (None, Ddl::Create | Ddl::Evolve) => Ok(vec![offsets_definition(table)]),
    })
    .await
}

async fn change(
    client: &Client,
    table: &str,
    plan: impl Fn(&Existing) -> Result<Vec<String>, Vec<String>>,
) -> Result<(), Failure> {
    let decide = |existing: &Existing| plan(existing).map_err(|problems| Failure::misconfigured(problems.join("; ")));
    // Most often there is nothing to do, and looking takes no lock.
    if decide(&look_up(client, table).await?)?.is_empty() {
        return Ok(());
    }
    let begin =
        format!("BEGIN; SET LOCAL statement_timeout = '{DDL_TIMEOUT}'; SELECT pg_advisory_xact_lock({ADVISORY_LOCK})");
    client.batch_execute(&begin).await.map_err(|error| Failure::of_ddl(&error))?;
    // Somebody else may have done it while we waited for the lock.
    for statement in decide(&look_up(client, table).await?)? {
        tracing::info!(table, statement, "changing a table");
        client.batch_execute(&statement).await.map_err(|error| Failure::of_ddl(&error))?;
    }
    client.batch_execute("COMMIT").await.map_err(|error| Failure::of_ddl(&error))
}

async fn look_up(client: &Client, table: &str) -> Result<Existing, Failure> {
    const COLUMNS: &str = "SELECT c.attname::text, format_type(c.atttypid, c.atttypmod) \
        FROM (SELECT to_regclass($1) AS oid) t LEFT JOIN pg_attribute c \
        ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped WHERE t.oid IS NOT NULL";
    let rows =
        client.query_typed(COLUMNS, &[(&table, Type::TEXT)]).await.map_err(|error| Failure::of_session(&error))?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut columns = BTreeMap::new();
    for row in rows {
        let read = (|| {
            Ok::<_, tokio_postgres::Error>((row.try_get::<_, Option<String>>(0)?, row.try_get::<_, Option<String>>(1)?))
        })();
        // A table without any column gives one row of nulls.
        if let (Some(name), Some(kind)) = read.map_err(|error| Failure::of_session(&error))? {
            columns.insert(name, kind);
        }
    }
    Ok(Some(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#""public"."orders""#;

    fn column(name: &str, kind: ColumnType) -> Column {
        Column { name: name.into(), kind }
    }

    fn existing(columns: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = OWN.iter().map(|(name, kind)| ((*name).to_owned(), kind.to_string()));
        let given = columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()));
        own.chain(given).collect()
    }

    #[test]
    fn a_table_that_is_missing_is_created_unless_it_is_a_persons_own() {
        let wanted = [column("total", ColumnType::Numeric(Some((12, 2))))];
        let expected = r#"CREATE TABLE "public"."orders" ("total" numeric(12,2), "hb_delivery_id" uuid NOT NULL UNIQUE, "hb_event_id" text, "hb_source" text, "hb_topic" text, "hb_partition" integer, "hb_offset" bigint, "hb_received_at" timestamp with time zone)"#;
        for ddl in [Ddl::Create, Ddl::Evolve] {
            assert_eq!(plan(ddl, TABLE, &None, &wanted).unwrap(), [expected]);
        }
        assert_eq!(plan(Ddl::Manual, TABLE, &None, &wanted).unwrap_err().len(), 1);
    }

    #[test]
    fn a_table_that_fits_is_left_alone() {
        for ddl in [Ddl::Create, Ddl::Evolve, Ddl::Manual] {
            let is = Some(existing(&[("id", "integer"), ("extra", "point")]));
            assert_eq!(plan(ddl, TABLE, &is, &[column("id", ColumnType::Integer)]).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn evolve_adds_and_widens_in_one_statement() {
        let wanted = [column("id", ColumnType::BigInt), column("Note", ColumnType::Text)];
        let expected =
            r#"ALTER TABLE "public"."orders" ALTER COLUMN "id" TYPE bigint, ADD COLUMN IF NOT EXISTS "Note" text"#;
        assert_eq!(plan(Ddl::Evolve, TABLE, &Some(existing(&[("id", "integer")])), &wanted).unwrap(), [expected]);
    }

    #[test]
    fn create_and_manual_name_every_column_that_is_wrong() {
        let wanted = [column("id", ColumnType::BigInt), column("note", ColumnType::Text)];
        for ddl in [Ddl::Create, Ddl::Manual] {
            let problems = plan(ddl, TABLE, &Some(existing(&[("id", "integer")])), &wanted).unwrap_err();
            assert_eq!(problems.len(), 2);
            assert!(problems[0].contains("column id is integer, the schema asks for bigint"), "{problems:?}");
            assert!(problems[1].contains("column note (text) is missing"), "{problems:?}");
        }
    }

    #[test]
    fn evolve_refuses_what_would_lose_values() {
        let wanted = [column("id", ColumnType::Integer)];
        assert!(plan(Ddl::Evolve, TABLE, &Some(existing(&[("id", "boolean")])), &wanted).is_err());
    }

    #[test]
    fn an_insert_takes_a_column_of_all_rows_in_each_parameter() {
        let text = insert(TABLE, &[column("a\"b", ColumnType::Numeric(Some((4, 2))))]);
        assert!(text.starts_with(r#"INSERT INTO "public"."orders" ("a""b", "hb_delivery_id","#), "{text}");
        assert!(text.contains("SELECT c0::numeric(4,2), c1::uuid,"), "{text}");
        assert!(text.contains("unnest($1::text[], $2::text[],"), "{text}");
        assert!(text.ends_with("ON CONFLICT (hb_delivery_id) DO NOTHING RETURNING hb_offset::bigint"), "{text}");
    }
}
