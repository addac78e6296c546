//! Which user each domain's VMM runs as.

use std::collections::BTreeSet;

use super::spec::SANDBOX_ID_BASE;

/// Returns the users of domains' VMMs, by the users that those have which run already: each has one that no other has, nor one `elsewhere`, if
/// possible that of its place.
pub(super) fn sandbox_ids(held: &[Option<u32>], elsewhere: &[u32]) -> Vec<u32> {
    let mut taken: BTreeSet<u32> = held.iter().copied().flatten().collect();
    taken.extend(elsewhere);
    let mut ids = Vec::new();
    for (own, held) in (SANDBOX_ID_BASE..).zip(held) {
        let id = held.unwrap_or_else(|| {
            // There are as many numbers from each as domains at least.
            let free = (own..).chain(SANDBOX_ID_BASE..own).find(|id| !taken.contains(id));
            free.unwrap_or(own)
        });
        taken.insert(id);
        ids.push(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_vmms_have_one_user_whatever_those_have_that_run_on() {
        let base = SANDBOX_ID_BASE;
        assert_eq!(sandbox_ids(&[None, None], &[]), [base, base + 1]);
        // The policy has them the other way round now.
        assert_eq!(sandbox_ids(&[Some(base + 1), Some(base)], &[]), [base + 1, base]);
        assert_eq!(sandbox_ids(&[None, Some(base)], &[base]), [base + 1, base]);
        assert_eq!(sandbox_ids(&[Some(base + 1), None], &[base + 1]), [base + 1, base + 2]);
        // Those of a domain that there is not any more, and that are being ended.
        assert_eq!(sandbox_ids(&[None, None], &[base, base + 2]), [base + 1, base + 3]);
    }
}
