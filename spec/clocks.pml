/*
 * The age of freshness by a gateway's own clocks. True time is counted from the moment of asking; the revocation commits
 * right after it, so that nothing may be accepted from `bound` on. Both clocks may lose one tick in five (1% in the code).
 * A suspended machine stops the monotonic clock. The wall clock may be set forward by anything, and back beyond what it
 * showed at the moment of asking; a step back within the age, together with a suspension, is not covered.
 */
#define bound 5
#define longest 8
#ifdef NO_TOLERANCE
#define within bound
#else
#define within (bound - 1)
#endif

byte trueAge = 0, monotonic = 0, wall = 0, lost = 0;
bool wentBack = false;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(trueAge < bound)
#endif
#ifdef MONOTONIC_ONLY
#define isYoung (monotonic < within)
#elif defined(GONE_BACK_IS_YOUNG)
#define isYoung (monotonic < within && (wentBack || wall < within))
#else
#define isYoung (!wentBack && monotonic < within && wall < within)
#endif

active proctype Time() {
end:
  do
  :: atomic { trueAge < longest -> trueAge++; monotonic++; wall++ }
  :: atomic { trueAge < longest && (lost + 1) * 5 <= trueAge + 1 -> trueAge++; lost++ } /* slow clocks */
  :: atomic { trueAge < longest -> trueAge++; wall++ } /* suspended */
#ifdef REACH_LATE
  :: atomic { trueAge >= bound -> assert(false) }
#endif
  od
}

active proctype Steps() {
end:
  do
  :: atomic { wall < longest -> wall++ }
  :: atomic { !wentBack -> wentBack = true }
  od
}

active proctype Gateway() {
end:
  do
  :: atomic { isYoung -> accept() }
  od
}
