//! The host's name, for names that must differ between hosts.

/// The host's name in lower case, with anything but letters, digits, dots and dashes as a dash; `host` where it has none.
pub(crate) fn name() -> String {
    let raw = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = raw.trim().chars().map(plain).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() {
        "host".to_owned()
    } else {
        name.chars().take(63).collect()
    }
}
