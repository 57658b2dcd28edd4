//! Writing: whole row groups, one column after the other.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::{ROW_GROUP_REQUESTS, SCHEMA};
use crate::WorkloadRecord;

/// Collects a row group of requests and writes it.
pub(crate) struct ParquetSink<W: Write + Send> {
    file: SerializedFileWriter<W>,
    group: Vec<WorkloadRecord>,
}

impl<W: Write + Send> ParquetSink<W> {
    pub(crate) fn new(output: W) -> Result<Self> {
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::SNAPPY);
        // Differences of sorted times and of neighbouring ids are small numbers.
        for column in ["arrival_ns", "prefix_blocks.list.element"] {
            let path = ColumnPath::new(column.split('.').map(str::to_owned).collect());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        Ok(Self {
            file: SerializedFileWriter::new(output, schema, Arc::new(properties.build()))?,
            group: Vec::with_capacity(ROW_GROUP_REQUESTS),
        })
    }

    pub(crate) fn push(&mut self, record: WorkloadRecord) -> Result<()> {
        self.group.push(record);
        if self.group.len() == ROW_GROUP_REQUESTS {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes what is left and the footer. Without it there is no file.
    pub(crate) fn finish(mut self) -> Result<W> {
        if !self.group.is_empty() {
            self.write_group()?;
        }
        self.file.into_inner()
    }

    fn write_group(&mut self) -> Result<()> {
        let records = std::mem::take(&mut self.group);
        let mut group = self.file.next_row_group()?;
        let arrivals: Vec<i64> = records.iter().map(|record| record.arrival.0 as i64).collect();
        column::<Int64Type, _>(&mut group, &arrivals, None, None)?;
        let lengths: [fn(&WorkloadRecord) -> u32; 2] = [|record| record.prompt_tokens, |record| record.output_tokens];
        for length in lengths {
            let tokens: Vec<i32> = records.iter().map(|record| length(record) as i32).collect();
            column::<Int32Type, _>(&mut group, &tokens, None, None)?;
        }
        texts(&mut group, records.iter().map(|record| record.tenant.as_deref()))?;
        blocks(&mut group, &records)?;
        texts(&mut group, records.iter().map(|record| record.prompt_id.as_deref()))?;
        group.close()?;
        self.group = records;
        self.group.clear();
        Ok(())
    }
}

/// Writes the next column. Definition levels say which values are there, repetition levels where a list goes on
/// (Dremel's encoding, see the Parquet format's specification).
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) -> Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, definitions, repetitions)?;
        column.close()?;
    }
    Ok(())
}

fn texts<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> Result<()> {
    let mut values = Vec::new();
    let mut definitions = Vec::new();
    for text in texts {
        definitions.push(i16::from(text.is_some()));
        values.extend(text.map(ByteArray::from));
    }
    column::<ByteArrayType, _>(group, &values, Some(&definitions), None)
}

fn blocks<W: Write + Send>(group: &mut SerializedRowGroupWriter<'_, W>, records: &[WorkloadRecord]) -> Result<()> {
    let mut values = Vec::new();
    let mut definitions = Vec::new();
    let mut repetitions = Vec::new();
    for record in records {
        match record.prefix_blocks.as_deref() {
            // 0: no list; 1: a list without an element; 2: an element.
            None | Some([]) => {
                definitions.push(i16::from(record.prefix_blocks.is_some()));
                repetitions.push(0);
            }
            Some(blocks) => {
                for (index, block) in blocks.iter().enumerate() {
                    definitions.push(2);
                    repetitions.push(i16::from(index > 0));
                    values.push(*block as i64);
                }
            }
        }
    }
    column::<Int64Type, _>(group, &values, Some(&definitions), Some(&repetitions))
}
