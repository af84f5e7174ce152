//! What is under way: questions between groups, commands that a mover or an answer has led to, and
//! reports to the controllers. Each is kept once; a set of them is kept once, too.

use super::group::{Fixed, OrderId};
use kv::mover::wire::Ask;
use std::collections::HashMap;
use std::rc::Rc;

/// A message.
pub type MsgId = u16;
/// A set of messages.
pub type NetId = u32;

/// Something under way.
#[derive(Clone, Debug)]
pub enum Msg {
    /// A question to `ask.to.group`. Its answer is the commands it leads to.
    Ask(Ask),
    /// A command for a group's log.
    Order {
        /// The group.
        group: usize,
        /// The command.
        order: OrderId,
    },
    /// To the controllers.
    Report {
        /// The group.
        group: usize,
        /// Nothing through this configuration is owed.
        through: u8,
        /// Some shard is there.
        holds: bool,
    },
}

/// All messages and sets met.
#[derive(Default)]
pub struct Messages {
    messages: Vec<Msg>,
    ids: HashMap<Vec<u8>, MsgId, Fixed>,
    nets: Vec<Rc<[MsgId]>>,
    net_ids: HashMap<Rc<[MsgId]>, NetId, Fixed>,
}

impl Messages {
    /// With the empty set as number 0.
    pub fn new() -> Messages {
        let mut messages = Messages::default();
        messages.set(Vec::new());
        messages
    }

    pub fn id(&mut self, msg: Msg) -> Result<MsgId, String> {
        let key = match &msg {
            Msg::Ask(ask) => [&[0], &ask.to_bytes()[..]].concat(),
            Msg::Order { group, order } => [&[1, *group as u8], &order.to_be_bytes()[..]].concat(),
            Msg::Report {
                group,
                through,
                holds,
            } => vec![2, *group as u8, *through, u8::from(*holds)],
        };
        if let Some(id) = self.ids.get(&key) {
            return Ok(*id);
        }
        let id = MsgId::try_from(self.messages.len()).map_err(|_| "too many messages")?;
        self.messages.push(msg);
        self.ids.insert(key, id);
        Ok(id)
    }

    pub fn get(&self, id: MsgId) -> &Msg {
        &self.messages[usize::from(id)]
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The number of a set.
    pub fn set(&mut self, mut members: Vec<MsgId>) -> NetId {
        members.sort_unstable();
        if let Some(id) = self.net_ids.get(&members[..]) {
            return *id;
        }
        let members: Rc<[MsgId]> = members.into();
        let id = self.nets.len() as NetId;
        self.nets.push(members.clone());
        self.net_ids.insert(members, id);
        id
    }

    pub fn members(&self, net: NetId) -> Rc<[MsgId]> {
        self.nets[net as usize].clone()
    }
}
