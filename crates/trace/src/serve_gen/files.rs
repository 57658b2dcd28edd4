//! The two files of a client.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use super::{Client, ClientWindow, Family, ServeGenClients, WindowLengths, tar};
use crate::TraceError;
use crate::distribution::Histogram;
use crate::error::{excerpt, json_reason};
use crate::lines::Lines;

/// Length of a client's last window where its file has only one, seconds; ServeGen's own.
const WINDOW_S: f64 = 600.0;

/// A client while its files come in.
#[derive(Default)]
struct Parts {
    windows: Option<Vec<ClientWindow>>,
    lengths: Option<Vec<WindowLengths>>,
}

/// What a client sent, and until when it was recorded, silent or not.
struct Recording {
    windows: Vec<ClientWindow>,
    end_s: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Trace,
    Dataset,
}

/// Which client's which file this is: `chunk-12-trace.csv`, in any folder.
fn part_of(name: &str) -> Option<(u32, Part)> {
    let name = name.rsplit('/').next()?.strip_prefix("chunk-")?;
    if let Some(id) = name.strip_suffix("-trace.csv") {
        Some((id.parse().ok()?, Part::Trace))
    } else {
        let id = name.strip_suffix("-dataset.json")?;
        Some((id.parse().ok()?, Part::Dataset))
    }
}

/// The clients found so far.
struct Collection<'a> {
    origin: &'a str,
    clients: BTreeMap<u32, Parts>,
    end_s: f64,
}

impl Collection<'_> {
    fn take(&mut self, name: &str, content: &[u8]) -> Result<(), TraceError> {
        let Some((id, part)) = part_of(name) else {
            return Ok(());
        };
        let origin = format!("{}: {name}", self.origin);
        let parts = self.clients.entry(id).or_default();
        match part {
            Part::Trace => {
                let recording = recording(content, origin)?;
                self.end_s = self.end_s.max(recording.end_s);
                parts.windows = Some(recording.windows);
            }
            Part::Dataset => parts.lengths = Some(lengths(content, &origin)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<ServeGenClients, TraceError> {
        let origin = self.origin.to_owned();
        if self.clients.is_empty() {
            let found = "no file `chunk-N-trace.csv`".to_owned();
            return Err(malformed(&origin, "a set of ServeGen clients", found));
        }
        let clients = self
            .clients
            .into_iter()
            .map(|(id, parts)| match (parts.windows, parts.lengths) {
                (Some(windows), Some(lengths)) if !lengths.is_empty() => Ok(Client { id, windows, lengths }),
                // A client that never sent has no lengths.
                (Some(windows), Some(_)) if windows.is_empty() => Ok(Client {
                    id,
                    windows,
                    lengths: Vec::new(),
                }),
                (windows, lengths) => {
                    let expected = format!("`chunk-{id}-trace.csv` and `chunk-{id}-dataset.json` with a histogram");
                    let found = match (windows, lengths) {
                        (None, _) => "no trace",
                        (_, None) => "no dataset",
                        _ => "no histogram in the dataset",
                    };
                    Err(malformed(&origin, &expected, found.to_owned()))
                }
            });
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        Ok(ServeGenClients {
            clients,
            end_s: self.end_s,
        })
    }
}

fn malformed(origin: &str, expected: &str, found: String) -> TraceError {
    TraceError::Malformed {
        origin: origin.to_owned(),
        line: 0,
        expected: expected.to_owned(),
        found,
    }
}

pub(super) fn of_tar(input: impl BufRead, origin: &str) -> Result<ServeGenClients, TraceError> {
    let mut collection = Collection {
        origin,
        clients: BTreeMap::new(),
        end_s: 0.0,
    };
    let wanted = |name: &str| part_of(name).is_some();
    tar::files(input, origin, wanted, |name, content| collection.take(name, &content))?;
    collection.finish()
}

pub(super) fn of_folder(path: &Path) -> Result<ServeGenClients, TraceError> {
    let origin = path.display().to_string();
    let opening = |source| TraceError::Open {
        origin: origin.clone(),
        source,
    };
    let mut collection = Collection {
        origin: &origin,
        clients: BTreeMap::new(),
        end_s: 0.0,
    };
    let mut is_set = false;
    for entry in std::fs::read_dir(path).map_err(opening)? {
        let entry = entry.map_err(opening)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if part_of(&name).is_some() {
            is_set = true;
            let content = std::fs::read(entry.path()).map_err(|source| TraceError::Open {
                origin: entry.path().display().to_string(),
                source,
            })?;
            collection.take(&name, &content)?;
        }
    }
    if !is_set {
        return Err(TraceError::Directory { origin });
    }
    collection.finish()
}

/// The windows in which a client sent anything.
fn recording(content: &[u8], origin: String) -> Result<Recording, TraceError> {
    const EXPECTED: &str = "six fields: window's start in s, requests/s, coefficient of variation, Gamma or Weibull or \
                            nothing, shape, scale";
    let mut lines = Lines::new(content, origin);
    let mut all: Vec<(f64, Option<ClientWindow>)> = Vec::new();
    while lines.advance()? {
        let bad = || lines.malformed(EXPECTED, excerpt(lines.current()));
        let fields: Vec<&str> = lines.current().split(',').map(str::trim).collect();
        let [start, rate, cv, family, shape, _scale] = fields.as_slice() else {
            return Err(bad());
        };
        let number = |text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|value| (0.0..1e9).contains(value))
                .ok_or_else(bad)
        };
        let (start_s, rate_per_s, cv) = (number(start)?, number(rate)?, number(cv)?);
        if all.last().is_some_and(|(before, _)| *before >= start_s) {
            return Err(lines.malformed("windows in order of time", excerpt(lines.current())));
        }
        let gaps = match *family {
            "" => None,
            name => {
                let shape = Some(number(shape)?).filter(|shape| *shape > 0.0).ok_or_else(bad)?;
                Some(match name {
                    "Gamma" => Family::Gamma(shape),
                    "Weibull" => Family::Weibull(shape),
                    _ => return Err(bad()),
                })
            }
        };
        if rate_per_s > 0.0 && gaps.is_none() {
            return Err(lines.malformed("a family where the rate is not zero", excerpt(lines.current())));
        }
        let window = gaps.filter(|_| rate_per_s > 0.0).map(|gaps| ClientWindow {
            start_s,
            end_s: start_s,
            rate_per_s,
            cv,
            gaps,
        });
        all.push((start_s, window));
    }
    let starts: Vec<f64> = all.iter().map(|(start_s, _)| *start_s).collect();
    let last_s = match starts.as_slice() {
        [.., before, last] => last - before,
        _ => WINDOW_S,
    };
    let end_s = starts.last().map_or(0.0, |last| last + last_s);
    let ends = starts.iter().skip(1).copied().chain([end_s]);
    let sent = all.into_iter().zip(ends).filter_map(|((_, window), end_s)| {
        let window = ClientWindow { end_s, ..window? };
        Some(ClientWindow {
            gaps: unbiased(&window),
            ..window
        })
    });
    Ok(Recording {
        windows: sent.collect(),
        end_s,
    })
}

/// The family that makes gaps with the coefficient of variation that the file has, in expectation of its square.
///
/// The file's Gamma shape is 1/cv², which holds for a long series. Among `m` gaps that fill a window (shares that follow
/// a symmetric Dirichlet distribution with parameter `a`) the expected cv² is (m − 1) / (m·a + 1), much less where they
/// are few and bursty; this is solved for `a`. The Weibull shapes are fits by likelihood and stay.
fn unbiased(window: &ClientWindow) -> Family {
    const LEAST_SHAPE: f64 = 1e-3;
    let gaps = (window.rate_per_s * (window.end_s - window.start_s)).round() - 1.0;
    match window.gaps {
        Family::Gamma(_) if gaps >= 2.0 && window.cv > 0.0 => {
            let shape = ((gaps - 1.0) / (window.cv * window.cv) - 1.0) / gaps;
            Family::Gamma(shape.max(LEAST_SHAPE))
        }
        family => family,
    }
}

/// The windows' histograms, without those that are empty.
fn lengths(content: &[u8], origin: &str) -> Result<Vec<WindowLengths>, TraceError> {
    const EXPECTED: &str =
        "an object of windows `{\"600\": {\"input_tokens\": \"{12: 0.5, …}\", \"output_tokens\": \"{…}\"}}`";
    let windows: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(content).map_err(|error| TraceError::Malformed {
            origin: origin.to_owned(),
            line: error.line() as u64,
            expected: EXPECTED.to_owned(),
            found: json_reason(&error),
        })?;
    let mut all = Vec::new();
    for (start, fields) in &windows {
        let start_s = start.parse::<f64>().ok().filter(|start| (0.0..1e9).contains(start));
        let start_s = start_s.ok_or_else(|| malformed(origin, "a window's start in seconds", excerpt(start)))?;
        let field = |name: &str| {
            let text = fields
                .get(name)
                .ok_or_else(|| malformed(origin, EXPECTED, format!("no `{name}` in the window from {start} s")))?;
            let bins = bins(text).ok_or_else(|| {
                let expected = format!("a histogram `{{12: 0.5, …}}` as {name} in the window from {start} s");
                malformed(origin, &expected, excerpt(text))
            })?;
            Ok::<_, TraceError>(Histogram::new(bins))
        };
        if let (Some(input), Some(output)) = (field("input_tokens")?, field("output_tokens")?) {
            all.push(WindowLengths { start_s, input, output });
        }
    }
    all.sort_by(|one, other| one.start_s.total_cmp(&other.start_s));
    Ok(all)
}

/// A Python dictionary of integers and floats, as ServeGen writes them in a string.
fn bins(text: &str) -> Option<Vec<(u32, f64)>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let bin = |bin: &str| {
        let (tokens, share) = bin.split_once(':')?;
        let share = share.trim().parse::<f64>().ok()?;
        Some((tokens.trim().parse().ok()?, share)).filter(|_| share.is_finite() && share >= 0.0)
    };
    inside.split(',').map(bin).collect()
}
