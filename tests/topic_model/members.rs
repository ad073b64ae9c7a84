//! A shared group's members against a plain queue of turns.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use ringmq::topic::Members;

#[derive(Clone, Debug)]
enum Act {
    Join(u8, u16, u32),
    Leave(u8),
    Credit(u8, u32),
    ClearCredit(u8),
    Pick,
}

fn act() -> impl Strategy<Value = Act> {
    let member = 0..6_u8;
    prop_oneof![
        2 => (member.clone(), any::<u16>(), 0..3_u32).prop_map(|(m, v, c)| Act::Join(m, v, c)),
        1 => member.clone().prop_map(Act::Leave),
        3 => (member.clone(), 0..4_u32).prop_map(|(m, c)| Act::Credit(m, c)),
        1 => member.prop_map(Act::ClearCredit),
        6 => Just(Act::Pick),
    ]
}

#[derive(Default)]
struct Model {
    members: BTreeMap<u8, (u16, u32)>,
    /// Those with credit.
    turns: VecDeque<u8>,
}

impl Model {
    fn set_credit(&mut self, member: u8, credit: u32) {
        let Some((_, held)) = self.members.get_mut(&member) else { return };
        if *held == 0 && credit > 0 {
            self.turns.push_back(member);
        }
        if credit == 0 {
            self.turns.retain(|&other| other != member);
        }
        *held = credit;
    }

    fn pick(&mut self) -> Option<(u8, u16)> {
        let member = self.turns.pop_front()?;
        let (value, credit) = self.members.get_mut(&member)?;
        *credit -= 1;
        if *credit > 0 {
            self.turns.push_back(member);
        }
        Some((member, *value))
    }
}

proptest! {
    #[test]
    fn members_take_turns_as_a_queue_would(acts in prop::collection::vec(act(), 1..200)) {
        let mut members = Members::new();
        let mut model = Model::default();
        for act in acts {
            match act {
                Act::Join(member, value, credit) => {
                    let held = model.members.get(&member).copied();
                    model.members.insert(member, (value, held.map_or(0, |(_, credit)| credit)));
                    model.set_credit(member, credit);
                    prop_assert_eq!(members.join(member, value, credit), held.map(|(value, _)| value));
                }
                Act::Leave(member) => {
                    model.set_credit(member, 0);
                    let held = model.members.remove(&member);
                    prop_assert_eq!(members.leave(&member), held.map(|(value, _)| value));
                }
                Act::Credit(member, count) => {
                    let held = model.members.get(&member).copied();
                    prop_assert_eq!(members.credit(&member, count), held.is_some());
                    model.set_credit(member, held.map_or(0, |(_, credit)| credit) + count);
                }
                Act::ClearCredit(member) => {
                    model.set_credit(member, 0);
                    members.clear_credit(&member);
                }
                Act::Pick => prop_assert_eq!(members.pick(), model.pick()),
            }
            prop_assert_eq!(members.has_credit(), !model.turns.is_empty());
            prop_assert_eq!(members.len(), model.members.len());
            prop_assert_eq!(members.is_empty(), model.members.is_empty());
            let want: Vec<(u8, u16)> = model.members.iter().map(|(&m, &(v, _))| (m, v)).collect();
            prop_assert_eq!(members.iter().collect::<Vec<_>>(), want);
        }
    }
}
