//! Lists that are read only so far: a frame of tiny elements would otherwise become many times as long
//! in memory, before anybody looks at the limits.

use crate::config::{Group, GroupId, MAX_GROUPS, MAX_SERVERS};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt::{Formatter, Result as Written};
use std::marker::PhantomData;

/// How far above its limit a list is read: what is refused for its length is refused with a reason.
const BEYOND: usize = 4;

struct List<T>(usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;
    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        write!(f, "at most {} elements", self.0)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() == BEYOND * self.0 {
                return Err(Error::invalid_length(list.len() + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

struct Groups;

impl<'de> Visitor<'de> for Groups {
    type Value = BTreeMap<GroupId, Group>;
    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        write!(f, "at most {MAX_GROUPS} groups")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut groups = BTreeMap::new();
        while let Some((group, info)) = map.next_entry()? {
            if groups.len() == BEYOND * MAX_GROUPS {
                return Err(Error::invalid_length(groups.len() + 1, &self));
            }
            groups.insert(group, info);
        }
        Ok(groups)
    }
}

/// Addresses of a group's servers.
pub(crate) fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    from.deserialize_seq(List(MAX_SERVERS, PhantomData))
}

/// Groups that leave.
pub(crate) fn leaving<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<GroupId>, D::Error> {
    from.deserialize_seq(List(MAX_GROUPS, PhantomData))
}

/// Groups that join.
pub(crate) fn joining<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<GroupId, Group>, D::Error> {
    from.deserialize_map(Groups)
}

#[cfg(test)]
mod tests {
    use crate::api::Change;
    use crate::config::{Group, MAX_GROUPS, MAX_SERVERS};
    use crate::history::{decode, encode};

    fn group(servers: usize) -> Group {
        Group {
            servers: vec![String::new(); servers],
            birth: 0,
        }
    }

    fn join(groups: usize, servers: usize) -> Change {
        Change::Join((0..groups as u64).map(|g| (g, group(servers))).collect())
    }

    fn leave(groups: usize) -> Change {
        Change::Leave(vec![1; groups])
    }

    #[test]
    fn what_is_a_little_too_long_is_read_and_what_is_far_too_long_is_not() {
        for readable in [
            join(4 * MAX_GROUPS, 1),
            join(1, 4 * MAX_SERVERS),
            leave(4 * MAX_GROUPS),
        ] {
            assert_eq!(decode(&encode(&readable)), Some(readable));
        }
        for endless in [
            join(4 * MAX_GROUPS + 1, 1),
            join(1, 4 * MAX_SERVERS + 1),
            leave(4 * MAX_GROUPS + 1),
        ] {
            assert_eq!(decode::<Change>(&encode(&endless)), None);
        }
    }
}
