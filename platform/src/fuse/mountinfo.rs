//! The mount table from `/proc/self/mountinfo`, read without touching a mount, which may be dead.
//!
//! Invariant: mounts are only read, never changed. Pure except for reading that file; any thread.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file system type of modelfs mounts.
pub(super) const TYPE: &str = "fuse.modelfs";

/// One entry of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// The mount id, constant while it is mounted; it stays when a parent folder is renamed.
    pub(super) id: u64,
    /// `major:minor`.
    pub(super) device: String,
    pub(super) point: PathBuf,
    pub(super) kind: String,
    /// The mount source; for a FUSE mount, a name.
    pub(super) source: String,
    /// For a FUSE mount, the user who mounted it.
    pub(super) user: Option<u32>,
}

impl Mounted {
    /// The connection number of a FUSE mount: the minor number of its device.
    pub(super) fn connection(&self) -> Option<&str> {
        self.device.split_once(':').map(|(_, minor)| minor)
    }
}

/// All mounts; a mount over another one comes later.
pub(super) fn all() -> Vec<Mounted> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// The topmost mount at exactly this folder.
pub(super) fn at(point: &Path) -> Option<Mounted> {
    all().into_iter().rfind(|m| m.point == point)
}

/// `36 35 98:0 /root /point options - type source options`, with a variable number of fields
/// before the dash.
fn parse(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mounted {
        id: text(fields.first()?).parse().ok()?,
        device: text(fields.get(2)?),
        point: OsString::from_vec(unescape(fields.get(4)?)).into(),
        kind: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
        user: fields.get(dash + 3).and_then(|options| {
            text(options).split(',').find_map(|o| o.strip_prefix("user_id=")?.parse().ok())
        }),
    })
}

/// Resolves octal escapes: a blank is `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_parsed_as_the_kernel_prints_them() {
        let line = br"97 30 0:52 / /mnt/my\040models ro,nosuid shared:5 master:1 - fuse.modelfs modelfs-7f ro,user_id=7,group_id=0";
        let got = parse(line).unwrap();
        assert_eq!((got.point.to_str(), got.kind.as_str()), (Some("/mnt/my models"), TYPE));
        assert_eq!((got.id, got.connection(), got.user), (97, Some("52"), Some(7)));
        assert_eq!(got.source, "modelfs-7f");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 3"), None);
        assert_eq!(unescape(br"a\134b\04"), br"a\b\04");
        assert!(at(Path::new("/proc")).is_some_and(|m| m.kind == "proc"));
    }
}
