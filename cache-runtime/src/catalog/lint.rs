//! Checks the annotated functions of a program against each other.
//!
//! A finding is only about what the attributes state. Entries that are stored or evicted by hand are not known here.

use super::finding::{Code, Finding};
use super::table::time;
use super::template::Template;
use super::{Function, Known, Stores, TargetKind};
use crate::site::Role;

/// Old data can be seen for as long as an entry lives. The default TTL is not long.
const LONG: f64 = 3_600.0;

/// Returns the findings about functions, which are described in the same order.
pub(super) fn findings(known: &[Known], functions: &[Function]) -> Vec<Finding> {
    let mut findings = Vec::new();
    unmatched_evictions(known, &mut findings);
    shared_tags(known, &mut findings);
    for (at, (one, function)) in known.iter().zip(functions).enumerate() {
        lifetimes(one, function, known, &mut findings);
        arguments(one, &mut findings);
        listening(one, &mut findings);
        for other in &known[at + 1..] {
            shared_keys(one, other, &mut findings);
        }
    }
    findings
}

/// Finds targets that no function of any cache stores, because functions with their own caches may share a cache. A program that
/// stores nothing evicts entries of another program, so it is not checked.
fn unmatched_evictions(known: &[Known], findings: &mut Vec<Finding>) {
    let keys: Vec<&Template> = known.iter().filter_map(Known::key).collect();
    if keys.is_empty() {
        return;
    }
    let tags: Vec<&Template> = known.iter().flat_map(Known::stored_tags).collect();
    for evicting in known {
        for (target, template) in evicting.evicted() {
            let Some(template) = template else { continue };
            let (stored, what) = match target.kind {
                TargetKind::Tag => (&tags, "is not a tag of an annotated function"),
                _ => (&keys, "matches no entry of an annotated function"),
            };
            if stored.iter().any(|stored| template.overlaps(stored)) {
                continue;
            }
            let advice = match template.nearest(stored.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "check its spelling;".to_owned(),
            };
            findings.push(Finding {
                code: Code::UnmatchedEviction,
                functions: vec![evicting.site.name],
                message: format!("`{}` {what}", template.text),
                advice: format!(
                    "{advice} accept this if the entry is stored by hand or by another program"
                ),
            });
        }
    }
}

/// Finds entries that nothing but their TTL ends.
fn lifetimes(one: &Known, function: &Function, known: &[Known], findings: &mut Vec<Finding>) {
    let (Role::Reads, Some(key), Some(stores)) = (one.site.role, one.key(), &function.stores)
    else {
        return;
    };
    if one.is_renewed(known, |_| true) {
        return;
    }
    let Stores {
        ttl_seconds,
        none_ttl_seconds,
        grace_seconds,
        ..
    } = stores;
    let lives = ttl_seconds.map(|ttl| ttl + grace_seconds.unwrap_or_default());
    if let Some(lives) = lives.filter(|lives| *lives > LONG) {
        findings.push(Finding {
            code: Code::NeverEvicted,
            functions: vec![one.site.name],
            message: format!(
                "entries of `{}` live for {}, and no annotated function evicts or puts them",
                key.text,
                time(lives)
            ),
            advice: "add `#[cache_evict]` to what changes the data, or a shorter `ttl`; accept this if it may be old".to_owned(),
        });
    }
    if let Some(none_ttl) = none_ttl_seconds {
        findings.push(Finding {
            code: Code::NoneNotEvicted,
            functions: vec![one.site.name],
            message: format!(
                "`None` is stored for {} under `{}`, and no annotated function evicts or puts it, so what is created is hidden until then",
                time(*none_ttl),
                key.text
            ),
            advice: "add `#[cache_evict]` to the function that creates it, or remove `none_ttl`; accept this if nothing creates it".to_owned(),
        });
    }
}

fn arguments(one: &Known, findings: &mut Vec<Finding>) {
    let site = one.site;
    if !site.unkeyed.is_empty() {
        findings.push(Finding {
            code: Code::UnkeyedArgument,
            functions: vec![site.name],
            message: format!(
                "the body reads `{}`, which is missing from the key `{}`, so calls that differ only in it share one entry",
                site.unkeyed, site.template
            ),
            advice: "remove the `_` from its name and add it to the key, or to `ignore` if the result does not depend on it".to_owned(),
        });
    }
    if !site.free_text.is_empty() {
        findings.push(Finding {
            code: Code::TextInKey,
            functions: vec![site.name],
            message: format!(
                "the key `{}` contains the text `{}`: if clients choose it, every text that they send is stored",
                site.template, site.free_text
            ),
            advice: "add `unless` for results that are not worth an entry, or check before the call that the text is a known value".to_owned(),
        });
    }
}

/// Finds keys in the process for which Redis reports the changes of all keys.
fn listening(one: &Known, findings: &mut Vec<Finding>) {
    if one.site.local.is_some() && one.site.head().is_empty() {
        findings.push(Finding {
            code: Code::LocalTracksAll,
            functions: vec![one.site.name],
            message: format!(
                "`{}` begins with a placeholder and the function has `local`, so Redis reports each change of any key under the prefix to each process",
                one.site.template
            ),
            advice: "begin the key with a word, such as `user:<id>`".to_owned(),
        });
    }
}

/// Finds functions that store different things in one entry. Functions with a cache of their own do not share one with the others.
fn shared_keys(one: &Known, other: &Known, findings: &mut Vec<Finding>) {
    let (Some(key), Some(other_key)) = (one.key(), other.key()) else {
        return;
    };
    if one.site.has_own_cache != other.site.has_own_cache || !key.overlaps(other_key) {
        return;
    }
    let functions = vec![one.site.name, other.site.name];
    if !key.is_like(other_key) {
        findings.push(Finding {
            code: Code::OverlappingKeys,
            functions,
            message: format!(
                "`{}` and `{}` can name the same entry",
                key.text, other_key.text
            ),
            advice: "begin them with different words, such as `event:id:<id>` and `event:latest`"
                .to_owned(),
        });
    } else if may_differ(one.site.value, other.site.value) {
        findings.push(Finding {
            code: Code::ValueTypes,
            functions,
            message: format!(
                "both store under `{}`, but one stores `{}` and the other `{}`; neither reads what the other stored unless both are the same JSON",
                key.text, one.site.value, other.site.value
            ),
            advice: "give them different keys; accept this if one is an alias of the other".to_owned(),
        });
    }
}

/// Finds different tags that can have the same name, so that an eviction of the one also evicts what has the other. Functions with a
/// cache of their own do not share tags with the others.
fn shared_tags(known: &[Known], findings: &mut Vec<Finding>) {
    let mut tags: Vec<(&Known, &Template)> = Vec::new();
    for one in known {
        for tag in one.stored_tags() {
            let is_known = |(other, earlier): &(&Known, &Template)| {
                earlier.is_like(tag) && other.site.has_own_cache == one.site.has_own_cache
            };
            if !tags.iter().any(is_known) {
                tags.push((one, tag));
            }
        }
    }
    for (at, (one, tag)) in tags.iter().enumerate() {
        for (other, other_tag) in &tags[at + 1..] {
            if one.site.has_own_cache != other.site.has_own_cache || !tag.overlaps(other_tag) {
                continue;
            }
            let mut functions = vec![one.site.name, other.site.name];
            functions.dedup();
            findings.push(Finding {
                code: Code::OverlappingTags,
                functions,
                message: format!(
                    "`{}` and `{}` can be the same tag, so evicting the one also evicts what has the other",
                    tag.text, other_tag.text
                ),
                advice: "begin them with different words, such as `user:id:<id>` and `user:all`"
                    .to_owned(),
            });
        }
    }
}

/// Returns whether two types are spelled differently. `Self` may be any type.
fn may_differ(one: &str, other: &str) -> bool {
    contents(one) != contents(other) && !one.contains("Self") && !other.contains("Self")
}

/// Returns the type inside of pointers, which are stored as what they point to.
fn contents(name: &str) -> &str {
    let pointed = ["Arc<", "Box<", "Rc<"]
        .iter()
        .find_map(|pointer| name.strip_prefix(pointer)?.strip_suffix('>'));
    match pointed {
        Some(inner) => contents(inner),
        None => name,
    }
}
