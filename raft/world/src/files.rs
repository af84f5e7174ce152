//! How many files this process may have open, sockets included.

/// Raises that number to what the system lets this process have, and says what it is then; a limit
/// of 1024 is common where 4096 or many more are to be had for the asking. `None`: there is no
/// limit, or none that can be known (in simulation, on other systems than Unix).
pub fn allow_open_files() -> Option<u64> {
    raise()
}

#[cfg(all(unix, not(madsim)))]
fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Some systems name a hard limit that they do not grant; then it stays as it is.
        Err(_) => limit.current,
    }
}

#[cfg(not(all(unix, not(madsim))))]
fn raise() -> Option<u64> {
    None
}
