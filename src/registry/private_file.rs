//! Reads a file that holds a secret.
//!
//! Invariant: a file that others can read or change is refused; nothing of the file is in an error. Stateless.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The text of a file of at most `limit` bytes; an error is one line that says what to do.
pub fn read(path: &Path, limit: u64) -> Result<String, String> {
    read_if_any(path, limit)?.ok_or_else(|| format!("{}: there is no such file", path.display()))
}

/// The same; `None`: there is no such file.
pub fn read_if_any(path: &Path, limit: u64) -> Result<Option<String>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let file = match open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(failed(&e)),
    };
    if let Some(why) = exposed(&file).map_err(|e| failed(&e))? {
        return Err(failed(&why));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() as u64 > limit {
        return Err(failed(&format!("larger than {limit} bytes, which no secret is")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| failed(&"it is not UTF-8"))
}

/// Without waiting for a writer, as a FIFO would have it.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    File::options().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Who else may know or change what is in the file, and what to do.
#[cfg(unix)]
fn exposed(file: &File) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Some("it is no regular file".to_owned()));
    }
    let (user, owner) = (rustix::process::geteuid().as_raw(), meta.uid());
    if owner != user && owner != 0 {
        return Ok(Some(format!("it belongs to another user, {owner}")));
    }
    // A group may read it: services share a secret that way.
    let open = meta.mode() & 0o027;
    let remedy = "make it readable by you only (chmod 600)";
    Ok((open != 0).then(|| format!("other users can read or change it: {remedy}")))
}

#[cfg(not(unix))]
fn exposed(_: &File) -> io::Result<Option<String>> {
    Ok(None)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_file_that_is_closed_to_others_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(read(&path, 9).unwrap_err().contains("no such file"));
        assert_eq!(read_if_any(&path, 9), Ok(None));
        std::fs::write(&path, "s3cret").unwrap();
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false)]
        {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let text = read(&path, 9);
            assert_eq!(text.is_ok(), good, "{mode:o}: {text:?}");
            assert!(text.err().is_none_or(|why| why.contains("chmod") && !why.contains("s3c")));
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(read(&path, 5).unwrap_err().contains("larger"));
        assert!(read(dir.path(), 5).unwrap_err().contains("no regular file"));
    }
}
