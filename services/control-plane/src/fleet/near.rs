//! Names that somebody may have meant.

/// How many names are offered.
const OFFERED: usize = 5;

/// The names nearest to `wanted`: those that contain it, then those a few letters away.
pub(crate) fn near_names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<_> = names
        .map(|name| {
            (
                if name.contains(wanted) {
                    0
                } else {
                    edit_distance(wanted, name)
                },
                name,
            )
        })
        .filter(|(distance, name)| *distance * 2 <= wanted.len().min(name.len()))
        .collect();
    near.sort_unstable();
    near.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

/// Levenshtein's distance over bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_may_have_been_meant() {
        let names = ["pool-a/0", "pool-a/1", "pool-b/0", "zeppelin"];
        assert_eq!(
            near_names("pool-a", names.into_iter()),
            ["pool-a/0", "pool-a/1", "pool-b/0"]
        );
        assert_eq!(near_names("pol-b/0", names.into_iter())[0], "pool-b/0");
        assert!(near_names("qwerty", names.into_iter()).is_empty());
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
