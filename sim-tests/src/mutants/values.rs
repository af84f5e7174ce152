//! Values in pieces, and the header of a key's row.

use super::{Mutant, edit};

const WRITE: &str = "kv/src/machine/write.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "V01",
        star: false,
        what: "pieces of a value that became shorter are left behind",
        seen: "rows that nobody finds any more move with the shard, and an append takes them up",
        edits: &[edit(
            WRITE,
            "        self.drop_pieces(key, pieces(len)..old)",
            "        self.drop_pieces(key, old.min(pieces(len))..0)",
        )],
        tests: &["kv/machine::long_values::"],
    },
    Mutant {
        id: "V02",
        star: false,
        what: "the digest is not updated by a piece that changes",
        seen: "the digest is a sum over all rows",
        edits: &[edit(
            WRITE,
            "                true => self.rows.entry(row)?.set(piece),",
            "                true => self.rows.known(row, None).set(piece),",
        )],
        tests: &["kv/machine::long_values::"],
    },
    Mutant {
        id: "V03",
        star: false,
        what: "a compare looks at the length and the end of a long value",
        seen: "a compare is of the whole value",
        edits: &[edit(
            WRITE,
            "                    Some(expected) => self.begins(key, now, expected)?,",
            "                    Some(_) => true,",
        )],
        tests: &["kv/machine::long_values::a_compare_sees"],
    },
    Mutant {
        id: "V04",
        star: false,
        what: "an append reads and writes the whole value",
        seen: "a reader: 61 kB of appends made a writer on another shard wait for 28 s",
        edits: &[edit(
            WRITE,
            "        let partial = now.kept % PIECE_BYTES;
        if partial > 0 {",
            "        let partial = now.kept;
        if partial > 0
            && let Some(whole) = value::get(self.rows, self.target.shard, self.target.incarnation, key)?
        {
            now.tail = whole;
            now.kept = 0;
            self.found += partial;
        } else if partial > 0 {",
        )],
        tests: &["kv/machine::long_values::an_append_costs"],
    },
    Mutant {
        id: "V05",
        star: false,
        what: "change numbers of keys begin anew where a shard arrives",
        seen: "a key that was set again has changed, wherever it went meanwhile",
        edits: &[edit(
            "kv/src/machine/moves.rs",
            "        here.row.changes = here.row.changes.max(chunk.changes);\n",
            "",
        )],
        tests: &["kv/shards::chunks::change_numbers"],
    },
    Mutant {
        id: "V06",
        star: false,
        what: "a row of a newer version is read as if it were known",
        seen: "persisted types are versioned",
        edits: &[edit(
            "kv/src/machine/value.rs",
            "        if (*version, *kind) != (VERSION, STRING) {",
            "        if (*version, *kind) < (VERSION, STRING) {",
        )],
        tests: &["kv/machine::golden::a_row_of_a_key"],
    },
];
