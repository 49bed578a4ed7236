//! PostgreSQL's binary COPY: rows in and out.

use postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutIter, BinaryCopyOutRow};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Error, Transaction};

/// Copies `rows` into `table`: `write` writes one value for each column. Sends nothing if there are
/// no rows.
pub(super) fn copy_in<T>(
    transaction: &mut Transaction,
    table: &str,
    rows: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut BinaryCopyInWriter, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let types = column_types(transaction, &format!("SELECT * FROM {table}"))?;
    let writer = transaction.copy_in(&format!("COPY {table} FROM STDIN BINARY"))?;
    let mut writer = BinaryCopyInWriter::new(writer, &types);
    for row in rows {
        write(&mut writer, row)?;
    }
    writer.finish()?;
    Ok(())
}

/// Streams the rows of `query`: memory does not grow with their number.
pub(super) fn copy_out(
    transaction: &mut Transaction,
    query: &str,
    mut each: impl FnMut(&BinaryCopyOutRow),
) -> Result<(), Error> {
    let types = column_types(transaction, query)?;
    let reader = transaction.copy_out(&format!("COPY ({query}) TO STDOUT BINARY"))?;
    let mut rows = BinaryCopyOutIter::new(reader, &types);
    while let Some(row) = rows.next()? {
        each(&row);
    }
    Ok(())
}

fn column_types(transaction: &mut Transaction, query: &str) -> Result<Vec<Type>, Error> {
    let statement = transaction.prepare(query)?;
    Ok(statement.columns().iter().map(|column| column.type_().clone()).collect())
}
