//! The quota of processor time that control groups give to this process: of version 1 and 2, its own group and all above.

use super::tree::Tree;

const MOUNT: &str = "sys/fs/cgroup";

/// `None`: the kernel shows no group. `Some(None)`: no group has a quota. Else the least: cores' worth of time.
pub(super) fn quota(tree: &Tree) -> Option<Option<f64>> {
    let groups = groups(tree)?;
    let mut is_shown = false;
    let mut least: Option<f64> = None;
    for group in groups {
        let Some(found) = group.quota(tree) else { continue };
        is_shown = true;
        if let Some(cores) = found {
            least = Some(least.map_or(cores, |least| least.min(cores)));
        }
    }
    // The root of version 2 has no quota, and no file of it.
    let is_root = || tree.text(&format!("{MOUNT}/cgroup.controllers")).is_some();
    (is_shown || is_root()).then_some(least)
}

/// How often this process's groups were stopped over their quotas.
pub(super) fn throttled(tree: &Tree) -> Option<u64> {
    let counts = groups(tree)?.into_iter().filter_map(|group| {
        let text = tree.text(&format!("{}/cpu.stat", group.folder))?;
        text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse::<u64>().ok())
    });
    counts.reduce(|sum, count| sum + count)
}

struct Group {
    folder: String,
    is_v2: bool,
}

impl Group {
    /// `Some(None)`: it has none.
    fn quota(&self, tree: &Tree) -> Option<Option<f64>> {
        let (quota, period) = if self.is_v2 {
            let line = tree.line(&format!("{}/cpu.max", self.folder))?;
            let (quota, period) = line.split_once(' ')?;
            (quota.to_string(), period.parse::<f64>().ok()?)
        } else {
            let quota = tree.line(&format!("{}/cpu.cfs_quota_us", self.folder))?;
            (quota, tree.number(&format!("{}/cpu.cfs_period_us", self.folder))? as f64)
        };
        Some(quota.parse::<f64>().ok().filter(|quota| *quota > 0.0).map(|quota| quota / period))
    }
}

/// This process's groups that may have a quota, with all above.
fn groups(tree: &Tree) -> Option<Vec<Group>> {
    let text = tree.text("proc/self/cgroup")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let is_v2 = controllers.is_empty();
        let has_quota = controllers.split(',').any(|name| name == "cpu");
        if !is_v2 && !has_quota {
            continue;
        }
        // A container may see its own group as the root, and the host's path in its name.
        for mount in mounts(is_v2, controllers) {
            let mut path = path.trim_end_matches('/');
            loop {
                found.push(Group { folder: format!("{mount}{path}"), is_v2 });
                let Some((above, _)) = path.rsplit_once('/') else { break };
                path = above;
            }
        }
    }
    Some(found)
}

fn mounts(is_v2: bool, controllers: &str) -> Vec<String> {
    if is_v2 {
        return vec![MOUNT.to_string(), format!("{MOUNT}/unified")];
    }
    let mut names = vec![controllers, "cpu"];
    names.dedup();
    names.into_iter().map(|name| format!("{MOUNT}/{name}")).collect()
}
