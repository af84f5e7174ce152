//! The raft scenarios of MIT 6.5840 and wounds of earlier implementations, against the real
//! replica.
#![cfg(madsim)]

mod agreement;
mod births;
mod catch_up;
mod churn;
mod common;
mod compaction;
mod damage;
mod deaf;
mod disks;
mod elections;
mod figure8;
mod persistence;
mod snapshots;
mod versions;
mod wounds;
