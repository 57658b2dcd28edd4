//! Reading: a batch of requests at a time, whatever the size of a row group.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use equipoise_types::Timestamp;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::BATCH_REQUESTS;
use crate::reader::RecordSource;
use crate::writer::MOST_ARRIVAL;
use crate::{TraceError, WorkloadRecord};

/// A column's place and shape.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: usize,
    /// The definition level of a value that is there.
    present: i16,
    /// Whether the column itself may be absent in a row, rather than an element of it.
    optional: bool,
    repeated: bool,
}

/// Where the columns are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    arrival: Place,
    prompt: Place,
    output: Place,
    tenant: Option<Place>,
    blocks: Option<Place>,
    prompt_id: Option<Place>,
}

/// Reads requests from a Parquet file.
pub(crate) struct ParquetSource<R: ChunkReader> {
    file: SerializedFileReader<R>,
    origin: String,
    layout: Layout,
    next_group: usize,
    columns: Option<Columns>,
    batch: VecDeque<WorkloadRecord>,
    row: u64,
}

/// The readers of one row group, and how many of its rows are still to be read.
struct Columns {
    left: usize,
    arrival: ColumnReader,
    prompt: ColumnReader,
    output: ColumnReader,
    tenant: Option<ColumnReader>,
    blocks: Option<ColumnReader>,
    prompt_id: Option<ColumnReader>,
}

impl<R: ChunkReader + 'static> ParquetSource<R> {
    pub(crate) fn new(input: R, origin: String) -> Result<Self, TraceError> {
        let file = guarded(|| SerializedFileReader::new(input)).map_err(|error| broken(&origin, 0, error))?;
        let layout = Layout::of(&file, &origin)?;
        Ok(Self {
            file,
            origin,
            layout,
            next_group: 0,
            columns: None,
            batch: VecDeque::new(),
            row: 0,
        })
    }

    /// Reads the next batch; false at the end of the file.
    fn fill(&mut self) -> Result<bool, String> {
        let layout = self.layout;
        loop {
            if let Some(columns) = self.columns.as_mut().filter(|columns| columns.left > 0) {
                self.batch = guarded(|| columns.read(&layout))?;
                return Ok(true);
            }
            if self.next_group == self.file.num_row_groups() {
                return Ok(false);
            }
            let (file, index) = (&self.file, self.next_group);
            self.columns = Some(guarded(|| Columns::open(file, index, &layout))?);
            self.next_group += 1;
        }
    }
}

impl<R: ChunkReader + 'static> RecordSource for ParquetSource<R> {
    fn next_record(&mut self) -> Option<Result<WorkloadRecord, TraceError>> {
        if self.batch.is_empty() {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(reason) => return Some(Err(broken(&self.origin, self.row, reason))),
            }
        }
        self.row += 1;
        self.batch.pop_front().map(Ok)
    }
}

impl Layout {
    fn of<R: ChunkReader + 'static>(file: &SerializedFileReader<R>, origin: &str) -> Result<Self, TraceError> {
        let schema = file.metadata().file_metadata().schema_descr();
        let find = |name: &str, is_list: bool| {
            let index = schema.columns().iter().position(|column| {
                let parts = column.path().parts();
                parts.first().is_some_and(|first| first == name) && (is_list || parts.len() == 1)
            })?;
            let column: &ColumnDescriptor = &schema.column(index);
            let place = Place {
                index,
                present: column.max_def_level(),
                optional: schema.get_column_root(index).is_optional(),
                repeated: column.max_rep_level() > 0,
            };
            (column.max_rep_level() == i16::from(is_list)).then_some(place)
        };
        let need = |name: &'static str| {
            find(name, false).ok_or_else(|| TraceError::Parquet {
                origin: origin.to_owned(),
                row: 0,
                reason: format!(
                    "there is no column `{name}`; a workload has `arrival_ns`, `prompt_tokens` and `output_tokens`, and this \
                     file has {}",
                    names(schema.columns().iter().map(|column| column.path().string()))
                ),
            })
        };
        Ok(Self {
            arrival: need("arrival_ns")?,
            prompt: need("prompt_tokens")?,
            output: need("output_tokens")?,
            tenant: find("tenant", false),
            blocks: find("prefix_blocks", true),
            prompt_id: find("prompt_id", false),
        })
    }
}

fn names(columns: impl Iterator<Item = String>) -> String {
    columns.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Columns {
    fn open<R: ChunkReader + 'static>(
        file: &SerializedFileReader<R>,
        group: usize,
        layout: &Layout,
    ) -> Result<Self, String> {
        let group = file.get_row_group(group).map_err(text)?;
        let open = |place: Place| group.get_column_reader(place.index).map_err(text);
        Ok(Self {
            left: usize::try_from(group.metadata().num_rows()).map_err(|_| "a negative number of rows".to_owned())?,
            arrival: open(layout.arrival)?,
            prompt: open(layout.prompt)?,
            output: open(layout.output)?,
            tenant: layout.tenant.map(open).transpose()?,
            blocks: layout.blocks.map(open).transpose()?,
            prompt_id: layout.prompt_id.map(open).transpose()?,
        })
    }

    fn read(&mut self, layout: &Layout) -> Result<VecDeque<WorkloadRecord>, String> {
        let wanted = self.left.min(BATCH_REQUESTS);
        let arrivals = integers(&mut self.arrival, layout.arrival, wanted, "arrival_ns")?;
        let prompts = integers(&mut self.prompt, layout.prompt, wanted, "prompt_tokens")?;
        let outputs = integers(&mut self.output, layout.output, wanted, "output_tokens")?;
        let tenants = optional(self.tenant.as_mut(), layout.tenant, |column, place| {
            strings(column, place, wanted, "tenant")
        })?;
        let blocks = optional(self.blocks.as_mut(), layout.blocks, |column, place| {
            lists(column, place, wanted)
        })?;
        let prompt_ids = optional(self.prompt_id.as_mut(), layout.prompt_id, |column, place| {
            strings(column, place, wanted, "prompt_id")
        })?;
        self.left -= wanted;
        let (mut tenants, mut blocks, mut prompt_ids) =
            (tenants.into_iter(), blocks.into_iter(), prompt_ids.into_iter());
        let mut records = VecDeque::with_capacity(wanted);
        for row in 0..wanted {
            let tokens = |values: &[i64], name: &str| {
                u32::try_from(values[row]).map_err(|_| format!("{name} is {}, no number of tokens", values[row]))
            };
            records.push_back(WorkloadRecord {
                arrival: arrival(arrivals[row])?,
                prompt_tokens: tokens(&prompts, "prompt_tokens")?,
                output_tokens: tokens(&outputs, "output_tokens")?,
                tenant: tenants.next().flatten(),
                prefix_blocks: blocks.next().flatten(),
                prompt_id: prompt_ids.next().flatten(),
            });
        }
        Ok(records)
    }
}

/// A time that is not negative, as everywhere less than thirty years.
fn arrival(nanos: i64) -> Result<Timestamp, String> {
    match u64::try_from(nanos).map(Timestamp) {
        Ok(arrival) if arrival < MOST_ARRIVAL => Ok(arrival),
        _ => Err(format!("arrival_ns is {nanos}, not from zero to thirty years")),
    }
}

fn optional<T>(
    column: Option<&mut ColumnReader>,
    place: Option<Place>,
    read: impl FnOnce(&mut ColumnReader, Place) -> Result<Vec<T>, String>,
) -> Result<Vec<T>, String> {
    match (column, place) {
        (Some(column), Some(place)) => read(column, place),
        _ => Ok(Vec::new()),
    }
}

/// What was read of a column: the values that are there, and the levels that say where.
struct Read<T> {
    values: Vec<T>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

fn read<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    place: Place,
    wanted: usize,
    name: &str,
) -> Result<Read<T::T>, String> {
    let mut all = Read {
        values: Vec::new(),
        definitions: Vec::new(),
        repetitions: Vec::new(),
    };
    let mut rows = 0;
    while rows < wanted {
        let definitions = (place.present > 0).then_some(&mut all.definitions);
        let repetitions = place.repeated.then_some(&mut all.repetitions);
        let (more, _, _) = column
            .read_records(wanted - rows, definitions, repetitions, &mut all.values)
            .map_err(text)?;
        if more == 0 {
            return Err(format!("{name} has fewer rows than its row group"));
        }
        rows += more;
    }
    Ok(all)
}

fn integers(column: &mut ColumnReader, place: Place, wanted: usize, name: &str) -> Result<Vec<i64>, String> {
    let values: Vec<i64> = match column {
        ColumnReader::Int64ColumnReader(column) => read(column, place, wanted, name)?.values,
        ColumnReader::Int32ColumnReader(column) => {
            // Written as unsigned: the bits count.
            let values = read(column, place, wanted, name)?.values;
            values.into_iter().map(|value| i64::from(value as u32)).collect()
        }
        _ => return Err(format!("{name} is no column of integers")),
    };
    if values.len() == wanted {
        Ok(values)
    } else {
        Err(format!("{name} is null somewhere"))
    }
}

fn strings(column: &mut ColumnReader, place: Place, wanted: usize, name: &str) -> Result<Vec<Option<String>>, String> {
    let ColumnReader::ByteArrayColumnReader(column) = column else {
        return Err(format!("{name} is no column of text"));
    };
    let column: &mut ColumnReaderImpl<ByteArrayType> = column;
    let read = read(column, place, wanted, name)?;
    let mut values = read.values.iter();
    let mut next = || -> Result<Option<String>, String> {
        let value: &ByteArray = values.next().ok_or_else(|| format!("{name} has too few values"))?;
        value.as_utf8().map(|value| Some(value.to_owned())).map_err(text)
    };
    if place.present == 0 {
        return (0..wanted).map(|_| next()).collect();
    }
    let present = read.definitions.iter().map(|&level| level == place.present);
    present.map(|present| if present { next() } else { Ok(None) }).collect()
}

fn lists(column: &mut ColumnReader, place: Place, wanted: usize) -> Result<Vec<Option<Vec<u64>>>, String> {
    let ColumnReader::Int64ColumnReader(column) = column else {
        return Err("prefix_blocks is no list of 64-bit integers".to_owned());
    };
    let read = read(column, place, wanted, "prefix_blocks")?;
    let mut values = read.values.iter();
    let mut rows: Vec<Option<Vec<u64>>> = Vec::with_capacity(wanted);
    for (&definition, &repetition) in read.definitions.iter().zip(&read.repetitions) {
        if repetition == 0 {
            rows.push((definition > 0 || !place.optional).then(Vec::new));
        }
        if definition == place.present {
            let value = values.next().ok_or("prefix_blocks has too few values")?;
            let row = rows.last_mut().ok_or("prefix_blocks begins in the middle of a list")?;
            row.get_or_insert_default().push(*value as u64);
        } else if repetition > 0 {
            return Err("prefix_blocks has a null in a list".to_owned());
        }
    }
    Ok(rows)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn text(error: ParquetError) -> String {
    error.to_string()
}

fn broken(origin: &str, row: u64, reason: String) -> TraceError {
    TraceError::Parquet {
        origin: origin.to_owned(),
        row,
        reason,
    }
}

/// The decoder asserts what it takes for granted of a file: of 4,000 damaged ones in the tests' way, six made it panic. A
/// broken file is an error of the file, not the end of the program.
fn guarded<T, E: ToString>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the file contradicts itself".to_owned()),
    }
}
