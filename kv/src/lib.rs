//! The sharded key/value store: replica groups, the client and kvctl.
