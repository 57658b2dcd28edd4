use proptest::prelude::{Strategy as _, any, prop_assert, proptest};

use super::*;
use crate::evaluation::{auc, expected_calibration_error};
use crate::training::TrainingPrompt;

/// Topics of made-up prompts, from easy to hard; the last is one that only the second model is good at.
const TOPICS: [(&str, f64); 4] = [
    ("add the small numbers", 2.0),
    ("prove the lemma in topology", -2.0),
    ("what does the function return", 0.0),
    ("translate the sonnet into verse", 0.0),
];

fn prompt(random: &mut RandomStream) -> (usize, String) {
    let topic = random.below(TOPICS.len());
    let words = ["please", "carefully", "now", "step by step", "again", "for me"];
    let text = format!(
        "{} {} {} item {}",
        words[random.below(6)],
        TOPICS[topic].0,
        words[random.below(6)],
        random.below(50)
    );
    (topic, text)
}

/// Log-odds of a model of ability `ability`.
fn truth(topic: usize, model: usize, ability: f64) -> f64 {
    let own = if topic == 3 {
        if model == 1 { 2.0 } else { -2.0 }
    } else {
        0.0
    };
    ability + TOPICS[topic].1 + own
}

fn draw(random: &mut RandomStream, log_odds: f64) -> f64 {
    f64::from(u8::from(random.uniform() < crate::numeric::sigmoid(log_odds)))
}

const ABILITIES: [f64; 3] = [-1.0, 0.0, 1.0];

fn set(prompts: usize, seed: u64) -> TrainingSet {
    let mut random = RandomStream::new(seed);
    let prompts = (0..prompts).map(|_| {
        let (topic, text) = prompt(&mut random);
        let scores = (0..3)
            .map(|model| Some(draw(&mut random, truth(topic, model, ABILITIES[model]))))
            .collect();
        let median = [20.0, 400.0, 80.0, 150.0][topic];
        let output_tokens = (0..3).map(|_| Some(random.log_normal(median, 0.4))).collect();
        TrainingPrompt {
            text,
            scores,
            output_tokens,
        }
    });
    TrainingSet {
        models: vec!["small".into(), "poet".into(), "large".into()],
        prompts: prompts.collect(),
    }
}

fn options(kind: Kind) -> TrainingOptions {
    TrainingOptions {
        kind,
        embedding: EmbeddingConfig { half_bits: 9, rank: 12 },
        encoder: None,
        seed: 5,
        provenance: "made up".into(),
    }
}

fn trained(kind: Kind) -> Predictor {
    Predictor::train(&set(600, 1), &options(kind)).expect("trains")
}

/// (probability, score) of all models on unseen prompts.
fn samples(predictor: &Predictor) -> Vec<(f64, f64)> {
    let fresh = set(400, 2);
    let of = |prompt: &TrainingPrompt| {
        let estimates = predictor.quality(&prompt.text);
        let scores = prompt.scores.clone();
        estimates
            .into_iter()
            .zip(scores)
            .map(|(estimate, score)| (estimate.probability, score.expect("graded")))
    };
    fresh
        .prompts
        .iter()
        .flat_map(|prompt| of(prompt).collect::<Vec<_>>())
        .collect()
}

#[test]
fn training_is_deterministic_and_survives_the_file() {
    for kind in Kind::ALL {
        let predictor = trained(kind);
        let file = predictor.to_bytes();
        assert_eq!(file, trained(kind).to_bytes(), "{kind}");
        let back = Predictor::from_bytes(&file).expect("reads");
        assert_eq!(back, predictor, "{kind}");
        assert_eq!(
            back.forecast("what does it return?"),
            predictor.forecast("what does it return?"),
            "{kind}"
        );
        assert_eq!(back.kind(), kind);
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
}

#[test]
fn all_but_the_constant_tell_easy_from_hard() {
    for kind in Kind::ALL {
        let value = auc(&samples(&trained(kind))).expect("both outcomes");
        let least = if kind == Kind::Constant { 0.5 } else { 0.75 };
        assert!(value > least, "{kind}: {value}");
    }
}

#[test]
fn ours_is_calibrated_and_sees_who_is_good_at_what() {
    let predictor = trained(Kind::Equipoise);
    let error = expected_calibration_error(&samples(&predictor));
    assert!(error < 0.06, "{error}");
    let sonnet = predictor.forecast("please translate the sonnet into verse now item 3");
    let quality = |model| sonnet.of(model).expect("known").quality;
    assert!(quality("poet") > quality("large") + 0.2, "{sonnet:?}");
}

#[test]
fn lengths_cover_what_they_promise() {
    let predictor = trained(Kind::Constant);
    let fresh = set(400, 3);
    let (mut below, mut median, mut above, mut all) = (0.0, 0.0, 0.0, 0.0);
    for prompt in &fresh.prompts {
        for (forecast, tokens) in predictor
            .forecast(&prompt.text)
            .models
            .iter()
            .zip(&prompt.output_tokens)
        {
            let (length, tokens) = (forecast.output_tokens, tokens.expect("known"));
            below += f64::from(u8::from(tokens < length.p10));
            median += f64::from(u8::from(tokens < length.p50));
            above += f64::from(u8::from(tokens > length.p90));
            all += 1.0;
        }
    }
    assert!(
        (below / all - 0.1).abs() < 0.04 && (above / all - 0.1).abs() < 0.04,
        "{} {}",
        below / all,
        above / all
    );
    assert!((median / all - 0.5).abs() < 0.06, "{}", median / all);
    let tokens = |text: &str| predictor.forecast(text).models[0].output_tokens;
    let (short, long) = (
        tokens("now add the small numbers again item 4"),
        tokens("now prove the lemma in topology again item 4"),
    );
    assert!(long.p50 > 5.0 * short.p50, "{short:?} {long:?}");
}

#[test]
fn a_model_joins_from_a_few_dozen_answers() {
    for kind in [Kind::Irt, Kind::Equipoise] {
        let mut predictor = trained(kind);
        let mut random = RandomStream::new(11);
        let ability = 2.0;
        let mut answers = |count: usize| -> Vec<GradedAnswer> {
            (0..count)
                .map(|_| {
                    let (topic, text) = prompt(&mut random);
                    let score = draw(&mut random, truth(topic, 2, ability));
                    GradedAnswer {
                        text,
                        score,
                        output_tokens: Some(50.0),
                    }
                })
                .collect()
        };
        let (few, test) = (answers(40), answers(400));
        let before = predictor.forecast("what does the function return");
        predictor.join_model("org/Newcomer-Instruct", &few).expect("joins");
        let after = predictor.forecast("what does the function return");
        assert_eq!(before.models[..], after.models[..3], "the others stay as they were");
        let newcomer = |text: &str| predictor.forecast(text).of("newcomer").expect("joined").clone();
        let samples: Vec<(f64, f64)> = test
            .iter()
            .map(|answer| (newcomer(&answer.text).quality, answer.score))
            .collect();
        let mean = samples.iter().map(|(probability, _)| probability).sum::<f64>() / 400.0;
        let truth = samples.iter().map(|(_, score)| score).sum::<f64>() / 400.0;
        assert!((mean - truth).abs() < 0.1, "{kind}: {mean} {truth}");
        assert!(auc(&samples).expect("both outcomes") > 0.75, "{kind}");
        let sure = after.of("large").expect("known").quality_sd;
        assert!(
            kind != Kind::Irt || newcomer("what does the function return").quality_sd > sure,
            "less is known of it"
        );
        let back = Predictor::from_bytes(&predictor.to_bytes()).expect("reads");
        assert_eq!(back, predictor);
    }
}

#[test]
fn joining_is_refused_with_a_reason() {
    let answer = GradedAnswer {
        text: "x".into(),
        score: 1.0,
        output_tokens: None,
    };
    let good = vec![answer.clone(); 10];
    let mut predictor = trained(Kind::Irt);
    assert_eq!(
        predictor.join_model("Small", &good),
        Err(JoinError::Known("small".into()))
    );
    assert_eq!(
        predictor.join_model("new", &good[..2]),
        Err(JoinError::TooFew { found: 2 })
    );
    let mut bad = good.clone();
    bad[3].score = f64::NAN;
    assert!(matches!(
        predictor.join_model("new", &bad),
        Err(JoinError::Value { at: 3, .. })
    ));
    bad[3] = GradedAnswer {
        output_tokens: Some(-1.0),
        ..answer
    };
    assert!(matches!(
        predictor.join_model("new", &bad),
        Err(JoinError::Value { at: 3, .. })
    ));
    assert_eq!(
        trained(Kind::Linear).join_model("new", &good),
        Err(JoinError::Unable(Kind::Linear))
    );
}

#[test]
fn a_better_record_is_a_higher_forecast() {
    let mut forecasts = Vec::new();
    for right in [5, 15, 25, 35] {
        let mut predictor = trained(Kind::Equipoise);
        let mut random = RandomStream::new(4);
        let answers: Vec<GradedAnswer> = (0..40)
            .map(|index| GradedAnswer {
                text: prompt(&mut random).1,
                score: f64::from(u8::from(index * 7 % 40 < right)),
                output_tokens: None,
            })
            .collect();
        predictor.join_model("new", &answers).expect("joins");
        forecasts.push(
            predictor
                .forecast("what does the function return")
                .of("new")
                .expect("joined")
                .quality,
        );
    }
    assert!(forecasts.is_sorted(), "{forecasts:?}");
}

#[test]
fn a_set_that_cannot_be_learned_from_is_refused() {
    let good = set(30, 1);
    let refused = |set: &TrainingSet| Predictor::train(set, &options(Kind::Constant)).expect_err("refused");
    assert!(matches!(
        refused(&TrainingSet::default()),
        TrainingError::TooSmall { .. }
    ));
    let mut ragged = good.clone();
    ragged.prompts[4].scores.pop();
    assert!(matches!(refused(&ragged), TrainingError::Ragged { prompt: 4, .. }));
    let mut wrong = good.clone();
    wrong.prompts[2].scores[1] = Some(2.0);
    assert!(matches!(refused(&wrong), TrainingError::Value { prompt: 2, .. }));
    let mut ungraded = good;
    for prompt in &mut ungraded.prompts {
        prompt.scores[0] = None;
    }
    assert_eq!(refused(&ungraded), TrainingError::Ungraded { model: "small".into() });
}

#[test]
fn a_model_with_blanks_is_forecast_all_the_same() {
    let mut sparse = set(300, 9);
    for prompt in &mut sparse.prompts[20..] {
        prompt.scores[2] = None;
        prompt.output_tokens[2] = None;
    }
    for kind in Kind::ALL {
        let predictor = Predictor::train(&sparse, &options(kind)).expect("trains");
        for forecast in predictor.forecast("now prove the lemma in topology item 3").models {
            assert!(
                (0.0..=1.0).contains(&forecast.quality) && forecast.output_tokens.mean.is_finite(),
                "{kind}"
            );
        }
    }
}

#[test]
fn other_files_are_refused_for_what_they_are() {
    let file = trained(Kind::Equipoise).to_bytes();
    let refused = |file: &[u8]| Predictor::from_bytes(file).expect_err("refused");
    assert_eq!(refused(b""), ArtifactError::Foreign);
    assert_eq!(refused(b"\x80\x04\x95 a pickle, say"), ArtifactError::Foreign);
    for cut in [8, 11, 12, 20, 27, 28, file.len() / 2, file.len() - 1] {
        assert!(matches!(refused(&file[..cut]), ArtifactError::Length { .. }), "{cut}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), ArtifactError::Length { .. }));
    let mut newer = file.clone();
    newer[8] = 9;
    assert_eq!(refused(&newer), ArtifactError::Version { found: 9 });
    let mut damaged = file;
    let at = damaged.len() - 9;
    damaged[at] ^= 1;
    assert_eq!(refused(&damaged), ArtifactError::Checksum);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Predictor::from_bytes(&bytes).is_err());
        // As the body of a file whose header is right.
        prop_assert!(Predictor::from_bytes(&seal(&bytes)).is_err());
    }

    #[test]
    fn a_changed_byte_under_a_right_checksum_never_panics(
        kind in (0..Kind::ALL.len()).prop_map(|index| Kind::ALL[index]),
        place in 0.0..1.0_f64,
        value in any::<u8>(),
    ) {
        let set = set(40, 1);
        let small = TrainingOptions { embedding: EmbeddingConfig { half_bits: 4, rank: 2 }, ..options(kind) };
        let file = Predictor::train(&set, &small).expect("trains").to_bytes();
        let mut body = unseal(&file).expect("sound").to_vec();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
        let at = (place * body.len() as f64) as usize;
        body[at] = value;
        if let Ok(predictor) = Predictor::from_bytes(&seal(&body)) {
            for forecast in predictor.forecast("what does the function return").models {
                prop_assert!((0.0..=1.0).contains(&forecast.quality), "{forecast:?}");
                prop_assert!((0.0..=0.5).contains(&forecast.quality_sd), "{forecast:?}");
                let length = forecast.output_tokens;
                prop_assert!(length.p10 <= length.p50 && length.p50 <= length.p90, "{length:?}");
            }
        }
    }

    #[test]
    fn any_prompt_has_a_forecast_in_bounds(text in ".{0,300}") {
        let predictor = embedded();
        for forecast in predictor.forecast(&text).models {
            prop_assert!((0.0..=1.0).contains(&forecast.quality) && (0.0..=0.5).contains(&forecast.quality_sd));
            let length = forecast.output_tokens;
            prop_assert!(1.0 <= length.p10 && length.p10 <= length.p50 && length.p50 <= length.p90);
            prop_assert!(length.mean >= 1.0);
        }
    }
}

/// The embedded predictor, read once.
fn embedded() -> &'static Predictor {
    static EMBEDDED: std::sync::OnceLock<Predictor> = std::sync::OnceLock::new();
    EMBEDDED.get_or_init(|| Predictor::embedded().expect("the artifact in this repository is sound"))
}

#[test]
fn the_embedded_predictor_knows_the_usual_models() {
    let predictor = embedded();
    assert!(predictor.to_bytes().len() <= 8 << 20);
    let easy = predictor.forecast("Tom has 3 apples and buys 4 more. How many apples does he have?");
    let hard = predictor.forecast(
        "Let $f$ be an analytic function with $|f(z)| \\le \\frac{1}{1-|z|}$ for $|z|<1$. Find the least upper bound of \
         $|f''(0)|$ and express it in the form $p \\cdot q^n + r$.",
    );
    for model in [
        "google/gemma-2-9b-it",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "mistralai/Mistral-Large-Instruct-2407",
        "Qwen/Qwen2.5-7B-Instruct",
    ] {
        let quality = |forecast: &Forecast| forecast.of(model).expect(model).quality;
        assert!(quality(&easy) > quality(&hard) + 0.2, "{model}");
    }
}

/// Tells topics apart, and nothing else.
struct Topics;

impl crate::Embedder for Topics {
    fn dimension(&self) -> usize {
        TOPICS.len()
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        TOPICS
            .iter()
            .map(|(topic, _)| f32::from(u8::from(text.contains(topic))))
            .collect()
    }
}

#[test]
fn an_encoder_is_asked_for_again_and_no_other_is_taken() {
    let encoder = |fingerprint| ExternalEncoder::new(std::sync::Arc::new(Topics), fingerprint);
    for kind in [Kind::Knn { neighbours: 10 }, Kind::Irt, Kind::Equipoise] {
        let options = TrainingOptions {
            kind,
            encoder: Some(encoder(7)),
            ..TrainingOptions::default()
        };
        let predictor = Predictor::train(&set(200, 3), &options).expect("trains");
        assert_eq!(predictor.dimension(), 4);
        let easy = predictor.quality("add the small numbers")[0].probability;
        let hard = predictor.quality("prove the lemma in topology")[0].probability;
        assert!(easy > hard + 0.2, "{kind}: {easy} {hard}");
        let file = predictor.to_bytes();
        assert!(matches!(
            Predictor::from_bytes(&file),
            Err(ArtifactError::NeedsEncoder { .. })
        ));
        assert!(matches!(
            Predictor::from_bytes_with(&file, &encoder(8)),
            Err(ArtifactError::OtherEncoder { .. })
        ));
        let read = Predictor::from_bytes_with(&file, &encoder(7)).expect("the same encoder");
        assert_eq!(read, predictor);
        assert_eq!(read.forecast("add"), predictor.forecast("add"));
    }
}
