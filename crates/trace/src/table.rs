//! Tables as Parquet: figures of requests and of runs, for whatever reads columns. Numbers and text, any of them absent.

use std::fmt;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::Field;
use parquet::schema::parser::parse_message_type;

use crate::TraceError;

/// Rows of one group.
const ROW_GROUP: usize = 65_536;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Whole numbers.
    Integer,
    /// Real numbers.
    Real,
    /// Text.
    Text,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum TableValue {
    /// Not there.
    Absent,
    /// A whole number.
    Integer(u64),
    /// A real number.
    Real(f64),
    /// Text.
    Text(String),
}

impl From<u64> for TableValue {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}
impl From<f64> for TableValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}
impl From<&str> for TableValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl<T: Into<TableValue>> From<Option<T>> for TableValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

/// A column that is being collected: which rows have a value, and the values.
#[derive(Debug)]
enum Held {
    Integer(Vec<i64>),
    Real(Vec<f64>),
    Text(Vec<ByteArray>),
}

/// Writes a table row by row, holding one group of rows.
pub struct TableWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    origin: String,
    columns: Vec<(Held, Vec<i16>)>,
    rows: usize,
    written: u64,
}

impl<W: Write + Send> TableWriter<W> {
    /// A table with these columns; `origin` stands for its path in errors.
    ///
    /// # Errors
    /// The output fails, or a name is no word.
    pub fn new(output: W, origin: &str, columns: &[(&str, TableKind)]) -> Result<Self, TraceError> {
        let fields = columns.iter().map(|(name, kind)| match kind {
            TableKind::Integer => format!("optional int64 {name} (INTEGER(64, false));"),
            TableKind::Real => format!("optional double {name};"),
            TableKind::Text => format!("optional binary {name} (STRING);"),
        });
        let schema = format!("message table {{ {} }}", fields.collect::<Vec<_>>().join(" "));
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::SNAPPY)
            .build();
        let held = |(_, kind): &(&str, TableKind)| {
            let values = match kind {
                TableKind::Integer => Held::Integer(Vec::new()),
                TableKind::Real => Held::Real(Vec::new()),
                TableKind::Text => Held::Text(Vec::new()),
            };
            (values, Vec::new())
        };
        let file = parse_message_type(&schema)
            .and_then(|schema| SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties)));
        Ok(Self {
            file: file.map_err(|error| failed(origin, 0, error))?,
            origin: origin.to_owned(),
            columns: columns.iter().map(held).collect(),
            rows: 0,
            written: 0,
        })
    }

    /// Writes the next row: one value a column, in their order. A value of another kind than its column's counts as absent.
    ///
    /// # Errors
    /// The output fails.
    pub fn write(&mut self, row: impl IntoIterator<Item = TableValue>) -> Result<(), TraceError> {
        let mut row = row.into_iter();
        for (values, definitions) in &mut self.columns {
            let present = match (values, row.next()) {
                (Held::Integer(values), Some(TableValue::Integer(value))) => {
                    values.push(value as i64);
                    true
                }
                (Held::Real(values), Some(TableValue::Real(value))) => {
                    values.push(value);
                    true
                }
                (Held::Text(values), Some(TableValue::Text(value))) => {
                    values.push(ByteArray::from(value.into_bytes()));
                    true
                }
                _ => false,
            };
            definitions.push(i16::from(present));
        }
        self.rows += 1;
        self.written += 1;
        if self.rows == ROW_GROUP {
            self.write_group()
        } else {
            Ok(())
        }
    }

    fn write_group(&mut self) -> Result<(), TraceError> {
        self.rows = 0;
        let columns = &mut self.columns;
        let result = self.file.next_row_group().and_then(|mut group| {
            for (values, definitions) in columns {
                match values {
                    Held::Integer(values) => column::<Int64Type, _>(&mut group, values, definitions)?,
                    Held::Real(values) => column::<DoubleType, _>(&mut group, values, definitions)?,
                    Held::Text(values) => column::<ByteArrayType, _>(&mut group, values, definitions)?,
                }
            }
            group.close().map(|_| ())
        });
        result.map_err(|error| failed(&self.origin, self.written, error))
    }

    /// Writes what is left and the footer, without which there is no file.
    ///
    /// # Errors
    /// The output fails.
    pub fn finish(mut self) -> Result<W, TraceError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        let (origin, written) = (self.origin, self.written);
        let output = self
            .file
            .into_inner()
            .map_err(|error| failed(&origin, written, error))?;
        flushed(output).map_err(|error| failed(&origin, written, error))
    }
}

fn flushed<W: Write>(mut output: W) -> io::Result<W> {
    output.flush().map(|()| output)
}

fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &mut Vec<T::T>,
    definitions: &mut Vec<i16>,
) -> ParquetResult<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, Some(definitions), None)?;
        column.close()?;
    }
    values.clear();
    definitions.clear();
    Ok(())
}

impl<W: Write + Send> fmt::Debug for TableWriter<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TableWriter")
            .field("origin", &self.origin)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

fn failed(origin: &str, line: u64, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TraceError {
    TraceError::Io {
        origin: origin.to_owned(),
        line,
        source: io::Error::other(error),
    }
}

/// Reads a whole table: the names of its columns, and its rows.
///
/// # Errors
/// The file cannot be read or is no table.
pub fn read_table(path: &Path) -> Result<(Vec<String>, Vec<Vec<TableValue>>), TraceError> {
    let origin = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| failed(&origin, 0, error))?;
    let table = read_bytes(bytes.into());
    table.map_err(|error| failed(&origin, 0, error))
}

fn read_bytes(bytes: Bytes) -> ParquetResult<(Vec<String>, Vec<Vec<TableValue>>)> {
    let reader = SerializedFileReader::new(bytes)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let names = schema.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None)? {
        let row = row?;
        let values = row.get_column_iter().map(|(name, field)| match field {
            Field::Null => Ok(TableValue::Absent),
            Field::ULong(value) => Ok(TableValue::Integer(*value)),
            Field::Long(value) => Ok(TableValue::Integer(*value as u64)),
            Field::Double(value) => Ok(TableValue::Real(*value)),
            Field::Str(value) => Ok(TableValue::Text(value.clone())),
            other => Err(ParquetError::General(format!("the column {name} holds {other:?}"))),
        });
        rows.push(values.collect::<ParquetResult<_>>()?);
    }
    Ok((names, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_went() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let columns = [
            ("count", TableKind::Integer),
            ("value", TableKind::Real),
            ("name", TableKind::Text),
        ];
        let row = |index: u64| -> Vec<TableValue> {
            vec![
                (u64::MAX - index).into(),
                (!index.is_multiple_of(3)).then_some(index as f64 / 7.0).into(),
                (!index.is_multiple_of(5)).then_some("a “name”").into(),
            ]
        };
        let file = std::fs::File::create(&path).expect("a file");
        let mut writer = TableWriter::new(file, "t", &columns).expect("a table");
        for index in 0..70_000 {
            writer.write(row(index)).expect("written");
        }
        writer.finish().expect("written");
        let (names, rows) = read_table(&path).expect("reads");
        assert_eq!(names, ["count", "value", "name"]);
        assert_eq!(rows.len(), 70_000);
        assert!((0..).zip(&rows).all(|(index, found)| *found == row(index)));
        std::fs::write(&path, "not a table").expect("written");
        assert!(read_table(&path).is_err());
    }
}
