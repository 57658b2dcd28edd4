//! The regular files of a tar archive, in its order (POSIX ustar and GNU, as far as plain files need it).

use std::io::{self, Read};

use crate::TraceError;

const BLOCK: usize = 512;
/// A file of a client set is at most a few megabytes; more is another archive.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Calls `visit` with the name and content of every regular file that `wanted` names.
pub(super) fn files(
    mut input: impl Read,
    origin: &str,
    wanted: impl Fn(&str) -> bool,
    mut visit: impl FnMut(&str, Vec<u8>) -> Result<(), TraceError>,
) -> Result<(), TraceError> {
    let failed = |source: io::Error| TraceError::Io {
        origin: origin.to_owned(),
        line: 0,
        source,
    };
    let mut header = [0_u8; BLOCK];
    let mut long_name = None;
    loop {
        match input.read_exact(&mut header) {
            Ok(()) => {}
            // Two empty blocks should end it; some writers leave them out.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let size = sound_size(&header).ok_or_else(|| TraceError::Malformed {
            origin: origin.to_owned(),
            line: 0,
            expected: "a tar archive of ServeGen clients".to_owned(),
            found: "a header that is none".to_owned(),
        })?;
        let name = long_name.take().unwrap_or_else(|| name_of(&header));
        let kind = header[156];
        let is_file = matches!(kind, b'0' | 0) && wanted(&name);
        let is_long_name = kind == b'L';
        if is_file || is_long_name {
            if size > MAX_FILE_BYTES {
                let error = format!("{name} has {size} bytes, no file of a client has");
                return Err(failed(io::Error::other(error)));
            }
            let mut content = Vec::new();
            (&mut input).take(size).read_to_end(&mut content).map_err(failed)?;
            if content.len() as u64 != size {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            skip(&mut input, padding(size)).map_err(failed)?;
            if is_file {
                visit(&name, content)?;
            } else {
                long_name = Some(text(&content));
            }
        } else {
            skip(&mut input, size.saturating_add(padding(size))).map_err(failed)?;
        }
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn skip(input: &mut impl Read, bytes: u64) -> io::Result<()> {
    io::copy(&mut input.take(bytes), &mut io::sink()).map(drop)
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn name_of(header: &[u8; BLOCK]) -> String {
    let prefix = text(&header[345..500]);
    // GNU keeps times where POSIX has the prefix.
    if prefix.is_empty() || &header[257..263] != b"ustar\0" {
        text(&header[..100])
    } else {
        format!("{prefix}/{}", text(&header[..100]))
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(field).trim(), 8).ok()
}

/// The file's size, if the header's checksum is right.
fn sound_size(header: &[u8; BLOCK]) -> Option<u64> {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(index, byte)| u64::from(if (148..156).contains(&index) { b' ' } else { *byte }))
        .sum();
    // Less than 2^33 by the field's eleven digits, so that rounding up cannot overflow.
    octal(&header[124..136]).filter(|_| octal(&header[148..156]) == Some(sum))
}
