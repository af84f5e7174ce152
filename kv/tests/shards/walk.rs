//! A random walk: configurations change, groups leave and are shut down, members restart, messages
//! are lost, repeated and late, clients pipeline. Nothing lost, nothing twice, never two owners, and
//! the end is always reachable.

use super::client::Client;
use super::group::Rng;
use super::world::{Msg, World};
use ctrler::config::GroupId;
use kv::api::{Request, Response};
use kv::machine::command::{Command, Enter};

const GROUPS: u64 = 3;
const SHARDS: usize = 3;
const CONFIGS: u64 = 9;
const STEPS: usize = 1500;
/// More messages under way are dropped.
const FLYING: usize = 150;

struct Walk {
    world: World,
    clients: Vec<Client>,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let world = World::new(seed, GROUPS, SHARDS);
        // Now and then shards are larger than a chunk.
        let padding = if seed.is_multiple_of(5) { 60_000 } else { 0 };
        let clients = (0..2 * SHARDS)
            .map(|n| Client::new(n, (n % SHARDS) as u32, SHARDS as u32, padding))
            .collect();
        Walk { world, clients }
    }

    fn rng(&mut self) -> &mut Rng {
        &mut self.world.rng
    }

    /// Owners drawn at random among groups that are up; sometimes nobody.
    fn configure(&mut self, somebody: bool) {
        let up: Vec<GroupId> = self
            .world
            .groups
            .values()
            .filter(|g| !g.down)
            .map(|g| g.id)
            .collect();
        if !somebody && self.rng().chance(12) {
            return self.world.configure(&[None; SHARDS], &[]);
        }
        let some = 1 + self.rng().below(up.len());
        let mut members = up;
        while members.len() > some {
            let out = self.rng().below(members.len());
            members.remove(out);
        }
        let owners: Vec<_> = (0..SHARDS)
            .map(|_| Some(members[self.rng().below(members.len())]))
            .collect();
        self.world.configure(&owners, &members);
    }

    fn deliver(&mut self, msg: Msg) -> Result<(), String> {
        let installs = match &msg {
            Msg::Command(id, Command::Install { .. }) => Some(*id),
            _ => None,
        };
        self.handle(msg)?;
        // Between two chunks a member has only its rows.
        if let Some(id) = installs
            && self.rng().chance(40)
        {
            self.world.group(id).restart(0);
        }
        Ok(())
    }

    fn handle(&mut self, msg: Msg) -> Result<(), String> {
        if let Some(Msg::Reply(number, request, response, known)) = self.world.deliver(msg) {
            let client = &mut self.clients[number];
            client.take(&request, response, known, &mut self.world.rng, GROUPS)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng().below(100) {
            0..=1 if self.world.latest() < CONFIGS => self.configure(false),
            2 => self.shut_down(),
            3 => self.stray_enter(),
            4 => {
                let (id, member) = (self.any_group(), self.rng().below(2));
                self.world.group(id).restart(member);
            }
            5..=7 => {
                let id = self.any_group();
                self.world.group(id).catch_up(1);
            }
            8..=35 => {
                let id = self.any_group();
                let errands = self.world.errands(id);
                if !errands.is_empty() {
                    let which = self.rng().below(errands.len());
                    self.world.errand(id, &errands[which]);
                }
            }
            36..=55 => {
                let clients = self.clients.len();
                let which = self.rng().below(clients);
                let msgs = self.clients[which].act(&mut self.world.rng);
                self.world.flying.extend(msgs);
            }
            _ if self.world.flying.is_empty() => {}
            _ => {
                let flying = self.world.flying.len();
                let which = self.rng().below(flying);
                let lost = self.rng().chance(10);
                let again = self.rng().chance(20);
                let msg = match again {
                    true => self.world.flying[which].clone(),
                    false => self.world.flying.swap_remove(which),
                };
                if !lost {
                    self.deliver(msg)?;
                }
            }
        }
        while self.world.flying.len() > FLYING {
            let which = self.rng().below(FLYING);
            self.world.flying.swap_remove(which);
        }
        self.world.check_owners()
    }

    fn any_group(&mut self) -> GroupId {
        1 + self.rng().next() % GROUPS
    }

    /// One group at most is left running.
    fn shut_down(&mut self) {
        let id = self.any_group();
        let up = self.world.groups.values().filter(|g| !g.down).count();
        if up > 1 && self.world.may_shut_down(id) {
            self.world.note(format!("group {id} is shut down"));
            self.world.group(id).down = true;
        }
    }

    /// A leader with wrong ideas proposes some configuration.
    fn stray_enter(&mut self) {
        let id = self.any_group();
        let configs = self.world.configs.len();
        let num = self.rng().below(configs);
        if self.world.records.contains_key(&id) && num > 0 {
            let enter = Enter::new(&self.world.configs[num]);
            self.world
                .flying
                .push(Msg::Command(id, Command::Enter(enter)));
        }
    }

    /// Nothing is lost any more: everything must come to its end.
    fn finish(&mut self) -> Result<(), String> {
        self.configure(true);
        for _ in 0..800 {
            for msg in std::mem::take(&mut self.world.flying) {
                self.deliver(msg)?;
                self.world.check_owners()?;
            }
            if self.world.at_rest() && self.clients.iter().all(|c| c.acked == c.made) {
                return self.check_end();
            }
            for id in 1..=GROUPS {
                for errand in self.world.errands(id) {
                    self.world.errand(id, &errand);
                }
            }
            // Whoever gets no answer asks the controllers.
            let newest = self.world.configs.last().expect("never empty");
            for client in &mut self.clients {
                if self.world.groups[&client.target].down {
                    let owner = newest.shards[client.shard as usize];
                    client.target = owner.unwrap_or(client.target);
                }
            }
            let msgs: Vec<Msg> = self.clients.iter().flat_map(Client::resend).collect();
            self.world.flying.extend(msgs);
        }
        let stuck: Vec<_> = self
            .world
            .groups
            .values()
            .map(|g| (g.id, g.down, g.agenda()))
            .collect();
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|c| (c.number, c.session, c.acked, c.made, c.target))
            .collect();
        let records = &self.world.records;
        Err(format!(
            "the end is not reached: {stuck:?}, {records:?}, {clients:?}"
        ))
    }

    fn check_end(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            let owner = self
                .world
                .configs
                .last()
                .and_then(|c| c.shards[client.shard as usize]);
            let owner = owner.ok_or("the last configuration has owners")?;
            let get = Request::Get {
                shard: client.shard,
                key: client.key.clone(),
            };
            match self.world.group(owner).serve(get, 0) {
                Response::Value(value) => {
                    let found = client.length(value.as_deref())?;
                    if found != client.made {
                        let made = client.made;
                        return Err(format!("{found} writes in the end, {made} were answered"));
                    }
                }
                other => return Err(format!("the owner says {other:?}")),
            }
        }
        for id in 1..=GROUPS {
            let group = self.world.group(id);
            if group.down {
                continue;
            }
            group.catch_up(1);
            let [one, two] = &group.members[..] else {
                unreachable!("two members")
            };
            if (one.rows.digest(), one.rows.len()) != (two.rows.digest(), two.rows.len()) {
                return Err(format!("the members of group {id} differ"));
            }
            let before = group.page();
            group.restart(0);
            if group.page() != before {
                return Err(format!("group {id} forgets something at a restart"));
            }
            let stray = self.world.stray_rows(id);
            if stray > 0 {
                return Err(format!(
                    "{stray} rows of shards that group {id} gave are still there"
                ));
            }
        }
        Ok(())
    }
}

fn walk(seed: u64) -> Result<(), String> {
    let mut walk = Walk::new(seed);
    let mut go = || {
        for _ in 0..STEPS {
            walk.step()?;
        }
        walk.finish()
    };
    go().map_err(|reason| {
        let events = walk.world.events.join("\n  ");
        format!("seed {seed}: {reason}\n(replay: KV_WALK_SEED={seed})\n  {events}\nseed {seed}: {reason}")
    })
}

#[test]
fn nothing_lost_nothing_twice_never_two_owners() {
    let seed = std::env::var("KV_WALK_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let walks: u64 = std::env::var("KV_WALKS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(150);
    let seeds = seed.map_or(0..walks, |seed: u64| seed..seed + 1);
    for seed in seeds {
        if let Err(reason) = walk(seed) {
            panic!("{reason}");
        }
    }
}
