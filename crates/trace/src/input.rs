//! Opening a file: decompressed where it is gzip, with a look at its first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::TraceError;

/// So much of a file is looked at to tell its format.
const HEAD_BYTES: u64 = 64 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// A stream whose first bytes are known, and are still to be read.
pub(crate) struct Peeked<R> {
    head: Vec<u8>,
    rest: R,
}

impl<R: BufRead> Peeked<R> {
    pub(crate) fn new(mut rest: R) -> io::Result<Self> {
        let mut head = Vec::new();
        (&mut rest).take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok(Self { head, rest })
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The whole stream.
    pub(crate) fn into_stream(self) -> Chain<Cursor<Vec<u8>>, R> {
        Cursor::new(self.head).chain(self.rest)
    }
}

/// Opens a file; a folder is an error.
pub(crate) fn open_file(path: &Path) -> Result<File, TraceError> {
    let origin = path.display().to_string();
    match File::open(path) {
        // Opening a directory succeeds on Unix; only reading fails, and says nothing of use.
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_dir()) => Err(TraceError::Directory { origin }),
        Ok(file) => Ok(file),
        Err(source) => Err(TraceError::Open { origin, source }),
    }
}

/// A stream of `input`, decompressed if it begins like gzip, whatever its name.
pub(crate) fn peek<'a>(input: impl BufRead + 'a) -> io::Result<Peeked<Box<dyn BufRead + 'a>>> {
    const GZIP: &[u8] = b"\x1f\x8b";
    let outer = Peeked::new(input)?;
    if !outer.head().starts_with(GZIP) {
        let Peeked { head, rest } = outer;
        return Ok(Peeked {
            head,
            rest: Box::new(rest),
        });
    }
    let inner = MultiGzDecoder::new(outer.into_stream());
    Peeked::new(Box::new(BufReader::with_capacity(BUFFER_BYTES, inner)))
}

/// Opens a file for reading and looks at its first bytes.
pub(crate) fn peek_file(path: &Path) -> Result<Peeked<Box<dyn BufRead>>, TraceError> {
    let file = BufReader::with_capacity(BUFFER_BYTES, open_file(path)?);
    peek(file).map_err(|source| TraceError::Io {
        origin: path.display().to_string(),
        line: 0,
        source,
    })
}
