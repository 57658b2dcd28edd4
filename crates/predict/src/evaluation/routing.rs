//! What predictions are worth to a router: accuracy against mean cost as the price of cost rises.

/// One end of a trade: what a request costs on average, and how good its answer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Mean cost, as a share of the way from the cheapest to the dearest model, in [0, 1].
    pub cost: f64,
    /// Mean score.
    pub score: f64,
}

/// The best trades that a router reaches.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutedCurve {
    /// The upper convex hull, rising, from cost 0 to cost 1.
    pub points: Vec<Point>,
    /// The area under it, which is the mean score over all budgets.
    pub area: f64,
}

/// Prices tried: zero, and this many from 10⁻⁴ to 10² per whole cost range.
const PRICES: usize = 240;

/// Routes every prompt to `argmax_m predicted - λ · cost` for a sweep of prices λ. Rows are prompts, entries models, `costs`
/// per model; ties go to the cheaper model. `None` without prompts, or if all models cost the same.
#[must_use]
pub fn routed_curve(predicted: &[Vec<f64>], scores: &[Vec<f64>], costs: &[f64]) -> Option<RoutedCurve> {
    let lowest = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if predicted.is_empty() || highest <= lowest {
        return None;
    }
    let costs: Vec<f64> = costs.iter().map(|cost| (cost - lowest) / (highest - lowest)).collect();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let count = predicted.len() as f64;
    let mut points: Vec<Point> = prices()
        .map(|price| {
            let mut sum = Point { cost: 0.0, score: 0.0 };
            for (predicted, scores) in predicted.iter().zip(scores) {
                let mut best = (0, f64::NEG_INFINITY);
                for (model, (probability, cost)) in predicted.iter().zip(&costs).enumerate() {
                    // So small that it only decides ties.
                    let value = probability - (price + 1e-12) * cost;
                    if value > best.1 {
                        best = (model, value);
                    }
                }
                sum.cost += costs[best.0];
                sum.score += scores[best.0];
            }
            Point {
                cost: sum.cost / count,
                score: sum.score / count,
            }
        })
        .collect();
    let cheapest = costs.iter().position(|&cost| cost == 0.0).unwrap_or(0);
    points.push(Point {
        cost: 0.0,
        score: scores.iter().map(|scores| scores[cheapest]).sum::<f64>() / count,
    });
    Some(hull(points))
}

/// The curve of a router that knows every score beforehand.
#[must_use]
pub fn oracle_curve(scores: &[Vec<f64>], costs: &[f64]) -> Option<RoutedCurve> {
    routed_curve(scores, scores, costs)
}

fn prices() -> impl Iterator<Item = f64> {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let rising = (0..=PRICES).map(|step| 10.0_f64.powf(-4.0 + 6.0 * step as f64 / PRICES as f64));
    [0.0].into_iter().chain(rising)
}

/// The upper convex hull of the points with what money cannot spoil: paying more never buys less.
fn hull(mut points: Vec<Point>) -> RoutedCurve {
    let best = points.iter().map(|point| point.score).fold(f64::NEG_INFINITY, f64::max);
    points.push(Point { cost: 1.0, score: best });
    points.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(b.score.total_cmp(&a.score)));
    let mut hull: Vec<Point> = Vec::new();
    for point in points {
        if hull
            .last()
            .is_some_and(|last| point.score < last.score || point.cost <= last.cost)
        {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let turn = (last.cost - before.cost) * (point.score - before.score)
                - (last.score - before.score) * (point.cost - before.cost);
            if turn < 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    let area = hull
        .windows(2)
        .map(|pair| (pair[1].cost - pair[0].cost) * 0.5 * (pair[0].score + pair[1].score))
        .sum();
    RoutedCurve { points: hull, area }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oracle_pays_only_where_it_helps() {
        // Two models; the dear one is needed for half of the prompts.
        let scores = vec![vec![1.0, 1.0], vec![0.0, 1.0]];
        let curve = oracle_curve(&scores, &[1.0, 3.0]).expect("a curve");
        // From (0, 0.5) to (0.5, 1), then flat: 0.375 + 0.5.
        assert!((curve.area - 0.875).abs() < 1e-9, "{curve:?}");
        // Knowing only means: straight from (0, 0.5) to (1, 1).
        let means = vec![vec![0.5, 1.0]; 2];
        let blind = routed_curve(&means, &scores, &[1.0, 3.0]).expect("a curve");
        assert!((blind.area - 0.75).abs() < 1e-9, "{blind:?}");
    }

    #[test]
    fn a_hull_is_rising_and_concave() {
        let scores: Vec<Vec<f64>> = (0..50_u8)
            .map(|at| vec![f64::from(at % 3 / 2), f64::from(at % 2), 1.0])
            .collect();
        let predicted: Vec<Vec<f64>> = (0..50_u8).map(|at| vec![0.4, f64::from(at % 5) / 5.0, 0.9]).collect();
        let curve = routed_curve(&predicted, &scores, &[1.0, 2.0, 9.0]).expect("a curve");
        let slopes: Vec<f64> = curve
            .points
            .windows(2)
            .map(|pair| (pair[1].score - pair[0].score) / (pair[1].cost - pair[0].cost))
            .collect();
        assert!(
            slopes.iter().all(|&slope| slope >= 0.0) && slopes.is_sorted_by(|a, b| a >= b),
            "{slopes:?}"
        );
        assert!(routed_curve(&[], &[], &[1.0, 2.0]).is_none());
        assert!(routed_curve(&predicted, &scores, &[1.0; 3]).is_none());
    }
}
