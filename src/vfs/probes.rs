//! Names that programs probe in every folder. Pure.

/// Probed by file managers, desktops, shells and servers. No model has such a name, and no registry
/// should be asked for it.
const EVERYWHERE: [&str; 15] = [
    "$recycle.bin",
    "__init__.py",
    "__pycache__",
    "audio_ts",
    "autorun.inf",
    "bdmv",
    "dcim",
    "desktop.ini",
    "folder.jpg",
    "lost+found",
    "recycler",
    "system volume information",
    "thumbs.db",
    "video_ts",
    "web.config",
];

/// Whether programs probe this name everywhere: names that begin with a dot, and a few others.
pub(super) fn is_probed(name: &str) -> bool {
    name.starts_with('.') || EVERYWHERE.contains(&&*name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_programs_probe_everywhere_are_recognised() {
        for name in [".git", ".Trash-1000", ".", "desktop.ini", "Desktop.ini", "BDMV", "Thumbs.db"]
        {
            assert!(is_probed(name), "{name}");
        }
        for name in ["org", "v1", "git", "desktop", "init.py", ""] {
            assert!(!is_probed(name), "{name}");
        }
    }
}
