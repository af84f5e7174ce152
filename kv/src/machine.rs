//! The state machine of a replica group: shards, their rows and sessions, and their moves.
