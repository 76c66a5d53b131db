//! What figures depend on: the versions of crates, the machine and what else it does.

/// The versions of the crates of these names in a `Cargo.lock`.
pub(crate) fn versions(lock: &str, names: &[&str]) -> Vec<String> {
    let mut lines = lock.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.strip_suffix('"')?.to_owned());
        if let Some(name) = value(line, "name = \"").filter(|name| names.contains(&name.as_str()))
            && let Some(version) = lines.next().and_then(|line| value(line, "version = \""))
        {
            found.push(format!("{name} {version}"));
        }
    }
    found
}

/// Its cores, how many of them are for this program, and their model.
pub(crate) fn machine() -> String {
    let own = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let all = info.lines().filter(|line| line.starts_with("processor")).count().max(own);
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    if own == all { format!("{all} cores, {model}") } else { format!("{own} of {all} cores, {model}") }
}

/// How many programs ran or wanted to in the last minute.
pub(crate) fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}
