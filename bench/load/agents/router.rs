//! Takes the reports of agents about publishers of other agents to these other agents.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::link::Link;
use super::protocol::ToAgent;
use super::split::Split;

/// A publisher, and how far each other agent with subscribers of it has got.
#[derive(Debug)]
struct Route {
    owner: u16,
    audience: Vec<(u16, u64)>,
}

#[derive(Debug)]
pub(super) struct Router {
    /// The route of each publisher.
    routes: Mutex<Vec<Route>>,
    /// The link of each agent; the links hold the router.
    links: Vec<Weak<Link>>,
}

impl Router {
    pub(super) fn new(split: &Split, audiences: &[Vec<u16>], links: &[Arc<Link>]) -> Router {
        let route = |(owner, audience): (&u16, &Vec<u16>)| Route {
            owner: *owner,
            audience: audience.iter().map(|agent| (*agent, 0)).collect(),
        };
        let routes = split.publishers.iter().zip(audiences).map(route).collect();
        Router { routes: Mutex::new(routes), links: links.iter().map(Arc::downgrade).collect() }
    }

    /// Takes an agent's report: how far publishers of other agents have got with its subscribers.
    pub(super) fn note(&self, agent: usize, reported: &[(u32, u64)]) -> Result<(), String> {
        let batches = self.batches(agent, reported)?;
        for (link, batch) in self.links.iter().zip(batches).filter(|(_, batch)| !batch.is_empty()) {
            if let Some(link) = link.upgrade() {
                link.say(&ToAgent::Delivered(batch));
            }
        }
        Ok(())
    }

    /// The reports for each agent.
    fn batches(
        &self,
        agent: usize,
        reported: &[(u32, u64)],
    ) -> Result<Vec<Vec<(u32, u64)>>, String> {
        let mut batches = vec![Vec::new(); self.links.len()];
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (publisher, count) in reported {
            let nonsense = || {
                format!(
                    "it reports nonsense: messages of publisher {publisher}, which are not for it"
                )
            };
            let route = routes.get_mut(*publisher as usize).ok_or_else(nonsense)?;
            let least =
                |route: &Route| route.audience.iter().map(|(_, count)| *count).min().unwrap_or(0);
            let before = least(route);
            let mut audience = route.audience.iter_mut();
            let own =
                audience.find(|(other, _)| usize::from(*other) == agent).ok_or_else(nonsense)?;
            own.1 = own.1.max(*count);
            let now = least(route);
            if now > before {
                batches[usize::from(route.owner)].push((*publisher, now));
            }
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_hears_of_the_slowest_of_the_others() {
        let split = Split { publishers: vec![0, 1], subscribers: vec![] };
        let mut router = Router::new(&split, &[vec![1, 2], vec![2]], &[]);
        router.links = vec![Weak::new(), Weak::new(), Weak::new()];
        let none: Vec<Vec<(u32, u64)>> = vec![vec![]; 3];
        assert_eq!(router.batches(1, &[(0, 50)]), Ok(none.clone()));
        assert_eq!(
            router.batches(2, &[(0, 30), (1, 7)]),
            Ok(vec![vec![(0, 30)], vec![(1, 7)], vec![]])
        );
        assert_eq!(router.batches(2, &[(0, 90), (1, 6)]), Ok(vec![vec![(0, 50)], vec![], vec![]]));
        for (agent, publisher) in [(0, 0), (1, 1), (1, 2), (2, u32::MAX)] {
            assert!(
                router
                    .batches(agent, &[(publisher, 1)])
                    .is_err_and(|wrong| wrong.contains("nonsense"))
            );
        }
    }
}
