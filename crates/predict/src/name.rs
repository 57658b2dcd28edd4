//! One name for each model: the same weights go by many spellings.

/// The canonical spelling of a model's name: lower case, no organisation, `_` inside a version number read as a dot, no
/// `meta-` before `llama`, and none of the suffixes that say how a checkpoint is packed or tuned to follow instructions
/// (`-instruct`, `-instruct-2407`, `-it`, `-chat`, `-hf`, `-fp8`, `-awq`, ...).
///
/// A base checkpoint and its instruct version share a name: the instruct version is what gets served. Where both are in a
/// training set, the reader of that set keeps them apart by adding `-base` (which is kept here).
#[must_use]
pub fn canonical_model_name(name: &str) -> String {
    let after_organisation = name.rsplit('/').next().unwrap_or(name);
    let mut canonical = String::with_capacity(after_organisation.len());
    let characters: Vec<char> = after_organisation.trim().chars().collect();
    for (at, &character) in characters.iter().enumerate() {
        let digit = |index: usize| characters.get(index).is_some_and(char::is_ascii_digit);
        canonical.push(match character {
            '_' if at > 0 && digit(at - 1) && digit(at + 1) => '.',
            '_' | ' ' | ':' => '-',
            other => other.to_ascii_lowercase(),
        });
    }
    if let Some(rest) = canonical.strip_prefix("meta-llama-") {
        canonical = format!("llama-{rest}");
    }
    while let Some(stripped) = strip_one_suffix(&canonical) {
        canonical.truncate(stripped);
    }
    // Some catalogues leave the size out where a family has one member of that name.
    match canonical.as_str() {
        "mistral-large" => "mistral-large-123b".into(),
        "phi-3.5-mini-4k" | "phi-3.5-mini-128k" => "phi-3.5-mini".into(),
        "phi-3-mini-4k" | "phi-3-mini-128k" => "phi-3-mini".into(),
        "mistral-nemo" => "mistral-nemo-12b".into(),
        "mixtral-8x7b-instruct-v0.1" => "mixtral-8x7b".into(),
        "gpt4o" => "gpt-4o".into(),
        _ => canonical,
    }
}

/// Where to cut one packaging or tuning suffix off, if the name ends in one.
fn strip_one_suffix(name: &str) -> Option<usize> {
    const SUFFIXES: [&str; 14] = [
        "-instruct",
        "-it",
        "-chat",
        "-hf",
        "-fp8",
        "-fp16",
        "-bf16",
        "-awq",
        "-gptq",
        "-int8",
        "-int4",
        "-gguf",
        "-quantized.w8a8",
        "-quantized.w4a16",
    ];
    for suffix in SUFFIXES {
        if let Some(rest) = name.strip_suffix(suffix)
            && !rest.is_empty()
        {
            return Some(rest.len());
        }
    }
    // A release stamp after the tuning suffix: `-instruct-2407`, `-instruct-v0.1`.
    let (rest, stamp) = name.rsplit_once('-')?;
    let is_stamp = stamp.len() == 4 && stamp.bytes().all(|byte| byte.is_ascii_digit());
    (is_stamp && !rest.is_empty()).then_some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_weights_meet() {
        for (name, canonical) in [
            ("google/gemma-2-9b-it", "gemma-2-9b"),
            ("meta-llama/Meta-Llama-3.1-405B-Instruct-FP8", "llama-3.1-405b"),
            ("Meta-Llama-3_1-70B-Instruct", "llama-3.1-70b"),
            ("mistralai/Mistral-Large-Instruct-2407", "mistral-large-123b"),
            ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
            ("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini"),
            ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-7b-instruct-v0.2"),
            ("gpt4o", "gpt-4o"),
            ("", ""),
            ("-it", "-it"),
        ] {
            assert_eq!(canonical_model_name(name), canonical, "{name}");
        }
    }

    #[test]
    fn a_canonical_name_stays_as_it_is() {
        for name in ["google/gemma-2-9b-it", "A_B-chat-hf", "llama 3 8b", "x-2407-instruct"] {
            let once = canonical_model_name(name);
            assert_eq!(canonical_model_name(&once), once);
        }
    }
}
