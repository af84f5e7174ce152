//! The shard controller: which group owns which shard.
