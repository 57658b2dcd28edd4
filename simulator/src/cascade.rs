//! What a simulated cascade needs beyond an engine: how sure a first answer is of itself.

use equipoise_types::RandomStream;

/// Log-odds of the geometric-mean token probability of an answer about whose goodness nothing is known: 0.8.
const CENTRE: f64 = 1.386;
/// Spread of the log-odds among answers that are equally good.
const SPREAD: f64 = 0.6;
/// How far, in spreads, good answers lie from bad ones. An area under the ROC curve of Φ(d/√2) = 0.72: sequence
/// probabilities tell right from wrong answers about so well in the literature on selective answering (0.65 to 0.8 on
/// mathematics and questions). **It is an assumption, not a measurement**: the graded sets carry no log-probabilities.
const SEPARATION: f64 = 0.824;

/// How sure an answer is of itself, [0, 1], given how good it truly is. The same request's answer by the same model is as
/// sure in every run with the same seed, whatever the policy.
pub(crate) fn confidence(seed: u64, request: u32, model: &str, quality: f64) -> f64 {
    let mut random = RandomStream::new(seed).derive(&format!("confidence {request} {model}"));
    let side = 2.0 * quality.clamp(0.0, 1.0) - 1.0;
    let log_odds = CENTRE + SPREAD * (SEPARATION / 2.0 * side + random.normal());
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use equipoise_config::FleetFile;
    use equipoise_trace::WorkloadGenerator;

    use super::*;
    use crate::{Answer, AnsweredPrompt, PolicyResult, PromptSet, SimulationOptions, simulate};

    #[test]
    fn good_answers_are_surer_as_often_as_is_said() {
        let of = |quality: f64, from: u32| (from..from + 1000).map(move |id| confidence(7, id, "m", quality));
        let bad: Vec<f64> = of(0.0, 1000).collect();
        let surer = of(1.0, 0).flat_map(|good| bad.iter().map(move |bad| f64::from(good > *bad)));
        let area = surer.sum::<f64>() / 1e6;
        assert!((area - 0.72).abs() < 0.02, "{area}");
        assert_eq!(confidence(7, 3, "m", 1.0), confidence(7, 3, "m", 1.0));
    }

    #[test]
    fn both_calls_are_charged_and_what_is_shown_is_better_than_the_first_model() {
        let fleet = |cascade: &str| {
            let text = format!(
                r#"
                [scheduler]
                policy = "equipoise"
                settings.weights = {{ quality = 0, latency = 0, energy = 0, cost = 1 }}
                {cascade}
                [[model]]
                name = "small"
                architecture = "Qwen2.5-3B"
                quality = 0.5
                price = {{ input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1 }}
                [[model]]
                name = "large"
                architecture = "Qwen2.5-7B"
                quality = 0.9
                price = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 1 }}
                [[pool]]
                name = "s"
                model = "small"
                gpu = "H100"
                count = 2
                [[pool]]
                name = "l"
                model = "large"
                gpu = "H100"
                count = 2
                "#
            );
            FleetFile::parse(&text, "test").expect("a good fleet")
        };
        let answer = |quality: f64| Answer {
            quality,
            output_tokens: 40,
        };
        let prompt = |id: u32| AnsweredPrompt {
            id: id.to_string(),
            prompt_tokens: 100,
            forecast: None,
            answers: BTreeMap::from([
                ("small".to_owned(), answer(f64::from(id % 2))),
                ("large".to_owned(), answer(1.0)),
            ]),
        };
        let generator = WorkloadGenerator {
            requests: 600,
            ..WorkloadGenerator::default()
        };
        let mut records = generator.generate().expect("a workload").records;
        let questions = PromptSet::new((0..50).map(prompt).collect()).ask(records.len(), 1);
        questions.put_into(&mut records);
        let mut options = SimulationOptions {
            questions: Some(Arc::new(questions)),
            ..SimulationOptions::default()
        };
        let run = |options: &SimulationOptions, cascade: &str| {
            let results = simulate(&fleet(cascade), &records, options);
            results.expect("runs").remove(0)
        };
        let plain = run(&options, "");
        let settings = "cascade = { threshold = 0.8, risk = 0.3, memory = 500 }";
        let cascade = run(&options, settings);
        assert_eq!((plain.finished, plain.escalated), (600, 0));
        assert_eq!(cascade.finished, 600);
        let share = cascade.escalated as f64 / 600.0;
        assert!((0.2..0.8).contains(&share), "{share}");
        let quality = |result: &PolicyResult| result.quality_mean.expect("graded");
        assert!((quality(&plain) - 0.5).abs() < 0.05, "{}", quality(&plain));
        assert!(quality(&cascade) > 0.7, "{}", quality(&cascade));
        // The first call of every request, and the second of those that were escalated.
        let usd = |result: &PolicyResult| result.usd_per_1000_requests.expect("priced");
        let expected = usd(&plain) * (1.0 + 10.0 * share);
        assert!(
            (usd(&cascade) - expected).abs() < 0.03 * expected,
            "{} {expected}",
            usd(&cascade)
        );
        assert!(cascade.energy.is_conserved() && plain.energy.is_conserved());
        // More than three in ten of what was shown were bad: whoever hears of that asks for more confidence.
        options.feedback_share = 0.5;
        let told = run(&options, settings);
        assert!(told.escalated > cascade.escalated && quality(&told) > quality(&cascade));
    }
}
