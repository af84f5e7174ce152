//! A Raft replica: the consensus core driven over a real or simulated network and disk.
