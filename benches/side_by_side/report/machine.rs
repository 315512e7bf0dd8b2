//! What the figures were measured on, as far as it explains them.
//!
//! Plain values, read once. Nothing in them names the machine.

use std::collections::BTreeMap;

/// The processor's instructions that hashing profits from.
const FLAGS: [&str; 4] = ["avx2", "avx512f", "sha2", "sha_ni"];

/// A machine.
pub struct Machine {
    pub cores: usize,
    pub memory_gib: u64,
    pub processor: String,
    /// Which of the instructions it has.
    pub flags: BTreeMap<&'static str, bool>,
    pub kernel: String,
    /// Processes that ran or waited for the disk, on average over five minutes, before the first case.
    pub load: f64,
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

impl Machine {
    pub fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let has = field(&cpu, "flags").or(field(&cpu, "Features")).unwrap_or_default();
        let has: Vec<_> = has.split_whitespace().collect();
        let total = field(&memory, "MemTotal").and_then(|m| m.split(' ').next()?.parse().ok());
        // Numbers only: what distributions and hosts append is no property of the kernel.
        let kernel = read("/proc/sys/kernel/osrelease");
        let kernel = kernel.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            // rounded up: firmware keeps some of the last one
            memory_gib: total.unwrap_or(0u64).div_ceil(1 << 20),
            processor: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            flags: FLAGS.into_iter().map(|f| (f, has.contains(&f))).collect(),
            kernel,
            load: read("/proc/loadavg")
                .split(' ')
                .nth(1)
                .and_then(|l| l.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// In a line.
    pub fn words(&self) -> String {
        let with: Vec<_> = self.flags.iter().filter(|f| *f.1).map(|f| *f.0).collect();
        let with = if with.is_empty() { "no hashing instructions".into() } else { with.join(", ") };
        let Self { cores, memory_gib, processor, kernel, load, .. } = self;
        format!(
            "{cores} cores ({processor}; {with}), {memory_gib} GiB of memory, Linux {kernel}, load average {load} \
             before the first case"
        )
    }
}
