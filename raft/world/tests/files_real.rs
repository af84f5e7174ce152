//! The limit of open files, of this very process.
#![cfg(all(unix, not(madsim)))]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use world::files::allow_open_files;

#[test]
fn the_limit_is_raised_to_what_there_is() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let low = Rlimit {
        current: Some(256),
        maximum: hard,
    };
    setrlimit(Resource::Nofile, low).unwrap();
    assert_eq!(allow_open_files(), hard);
    assert_eq!(getrlimit(Resource::Nofile).current, hard);
    // Again is fine.
    assert_eq!(allow_open_files(), hard);
}
