//! Loops that are compiled twice: for what every processor of its kind has, and for vectors of 256 bits, which are used where
//! the processor says that it has them.

/// A function without a result that is compiled twice. It gains by it as far as the compiler inlines what it calls: plain
/// loops, no iterators that run by themselves. What it writes are the same bits either way: integers may be added in any order,
/// and the compiler neither changes the order of sums of floating-point numbers nor fuses their products with them.
macro_rules! widened {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) {
            #[inline(always)]
            fn plain($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $type),*) {
                    plain($($argument),*);
                }

                if std::arch::is_x86_feature_detected!("avx2") {
                    #[expect(unsafe_code, reason = "what is asked for in the line above cannot be said in types")]
                    // SAFETY: AVX2 is all that the function needs, and the processor has just said that it has it.
                    unsafe {
                        wide($($argument),*);
                    }
                    return;
                }
            }
            plain($($argument),*);
        }
    };
}

pub(crate) use widened;
