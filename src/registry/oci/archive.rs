//! The files in a tar archive: their names, and where their bytes lie in it. Pure.
//!
//! Invariant: what is found lies in the archive, and its bytes were there to be hashed. The caller has
//! verified the archive's digest: names, lengths and offsets are as trustworthy as that.

use std::io::Cursor;

use tar::{Archive, EntryType};

use super::manifest::relative;
use crate::base::text::brief;
use crate::model::Digest;
use crate::model::hash::sha256;

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, without `./` before it. Not yet checked.
    pub path: String,
    /// Where it begins in the archive.
    pub offset: u64,
    /// Its length.
    pub size: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
}

/// The files of an archive, in its order. Folders are implied by the paths; what a folder of model
/// files has no use for (links, devices, sparse files) is refused, with why in one line.
pub fn members(bytes: &[u8]) -> Result<Vec<Member>, String> {
    let mut archive = Archive::new(Cursor::new(bytes));
    let mut out = Vec::new();
    let bad = |e: std::io::Error| format!("not a tar archive: {}", brief(&e.to_string(), 120));
    for entry in archive.entries_with_seek().map_err(bad)? {
        let entry = entry.map_err(bad)?;
        let path = entry.path_bytes();
        let shown = brief(&String::from_utf8_lossy(&path), 80);
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => None,
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Symlink | EntryType::Link => Some("a link"),
            EntryType::GNUSparse => Some("a sparse file"),
            _ => Some("neither a file nor a folder"),
        };
        if let Some(kind) = kind {
            return Err(format!("'{shown}' in the archive is {kind}"));
        }
        let path = std::str::from_utf8(&path)
            .map_err(|_| format!("the name '{shown}' in the archive is not UTF-8"))?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let end = offset.checked_add(size).and_then(|end| usize::try_from(end).ok());
        let body = end.and_then(|end| bytes.get(offset as usize..end));
        let body = body.ok_or_else(|| format!("the archive ends within '{shown}'"))?;
        out.push(Member { path: relative(path).to_owned(), offset, size, sha256: sha256(body) });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            out.append_data(&mut header(*kind, data.len() as u64), path, *data).unwrap();
        }
        out.into_inner().unwrap()
    }

    #[test]
    fn members_are_found_where_they_lie() {
        let long = format!("{}/{}.safetensors", "deep".repeat(30), "name".repeat(30));
        let file = EntryType::Regular;
        let bytes = archive(&[
            ("./config.json", file, b"{}"),
            ("sub", EntryType::Directory, b""),
            (&long, file, &[7; 1000]),
            ("empty", file, b""),
        ]);
        let found = members(&bytes).unwrap();
        let paths: Vec<_> = found.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["config.json", long.as_str(), "empty"]);
        assert_eq!(&bytes[found[0].offset as usize..][..2], b"{}");
        assert_eq!(&bytes[found[1].offset as usize..][..1000], [7; 1000]);
        assert_eq!(found[1].sha256, sha256(&[7; 1000]));
        assert_eq!((found[2].size, found[2].sha256), (0, sha256(b"")));
    }

    #[test]
    fn long_names_of_pax_headers_are_read() {
        let mut out = tar::Builder::new(Vec::new());
        let long = "p".repeat(200);
        out.append_pax_extensions([("path", long.as_bytes())]).unwrap();
        out.append_data(&mut header(EntryType::Regular, 3), "short", &b"abc"[..]).unwrap();
        let found = members(&out.into_inner().unwrap()).unwrap();
        assert_eq!(
            found.iter().map(|m| (m.path.as_str(), m.size)).collect::<Vec<_>>(),
            [(long.as_str(), 3)]
        );
    }

    #[test]
    fn what_model_files_have_no_use_for_is_refused() {
        for (kind, why) in [
            (EntryType::Symlink, "a link"),
            (EntryType::Link, "a link"),
            (EntryType::Char, "neither"),
            (EntryType::Fifo, "neither"),
            (EntryType::GNUSparse, "a sparse file"),
        ] {
            let mut out = tar::Builder::new(Vec::new());
            let mut header = header(kind, 0);
            header.set_path("x").unwrap();
            header.set_link_name("/etc/passwd").unwrap();
            // What a sparse file's header has to have.
            header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
            header.set_cksum();
            out.append(&header, &b""[..]).unwrap();
            let error = members(&out.into_inner().unwrap()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn broken_archives_are_refused() {
        let good = archive(&[("a", EntryType::Regular, &[1; 2000])]);
        let cut = members(&good[..1024]).unwrap_err();
        assert!(cut.contains("the archive ends within 'a'"), "{cut}");
        let error = members(&[b'x'; 2048]).unwrap_err();
        assert!(error.contains("not a tar archive"), "{error}");
        let mut lying = header(EntryType::Regular, u64::MAX >> 1);
        lying.set_path("huge").unwrap();
        lying.set_cksum();
        let mut bytes = lying.as_bytes().to_vec();
        bytes.resize(2048, 0);
        assert!(members(&bytes).is_err());
    }
}
