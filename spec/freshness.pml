/*
 * Freshness and asOf: one credential, one revocation (seq 1), two gateways, a shared L2, a trigger that loses messages,
 * a relay that crashes and repeats, Redis that loses its data.
 *
 * Time is one bit: `late` is set when D has elapsed since the commit, which is possible only when every freshness that
 * counts from before the commit (`pre`) has run out. Accepting after that is the one thing that must not happen.
 */
bool committed = false; /* the revocation, at the source of truth */
bool late = false;
bool l2has = false;     /* an entry in L2, read before the revocation */
byte applied[2];
bool fresh[2], pre[2];
bool l1[2], connected[2];
chan signal0 = [2] of { byte };
chan signal1 = [2] of { byte };

#ifdef NO_FRESHNESS
#define isFresh(g) true
#else
#define isFresh(g) fresh[g]
#endif
#ifdef NO_ASOF
#define isNewerThanTombstones(g) true
#else
#define isNewerThanTombstones(g) (applied[g] == 0)
#endif
#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

active proctype Identity() { committed = true }

active proctype Clock() {
end:
  atomic {
    committed && !(fresh[0] && pre[0]) && !(fresh[1] && pre[1]) -> late = true
#ifdef REACH_LATE
    ; assert(false)
#endif
  }
}

active proctype Relay() {
end:
  committed;
  atomic {
    l2has = false;
    if :: connected[0] -> signal0!1 :: else fi;
    if :: connected[1] -> signal1!1 :: else fi
  }
}

proctype Gateway(byte g; chan signal) {
  byte S, v; bool askedBefore; byte watermarks = 0, exchanges = 0;
end:
  do
  :: atomic { signal?v -> applied[g] = 1; l1[g] = false; v = 0 }
  :: connected[g] -> connected[g] = false
  :: !connected[g] -> connected[g] = true
  :: watermarks < 1 ->
     watermarks++;
     askedBefore = !committed;
     S = committed;
     atomic {
       if :: applied[g] < S -> applied[g] = S; l1[g] = false :: else fi;
#ifdef T0_AT_ANSWER
       fresh[g] = true; pre[g] = !committed;
#else
       if
       :: askedBefore && late /* run out already */
       :: else -> fresh[g] = true; pre[g] = askedBefore
       fi;
#endif
       askedBefore = false; S = 0
     }
  :: fresh[g] -> fresh[g] = false
  /* the use-check, for an entry of asOf 0 from L1 or L2 */
  :: atomic { l1[g] && isFresh(g) && isNewerThanTombstones(g) -> accept() }
  :: atomic { l2has && isFresh(g) && isNewerThanTombstones(g) -> l1[g] = true; accept() }
  :: exchanges < 1 ->
     exchanges++;
     atomic { askedBefore = !committed; v = committed };
     if
     :: v == 1 /* refused */
     :: else ->
        l2has = true; /* a gateway may stall here, and fill L2 with what is no longer true */
        atomic {
          if :: isNewerThanTombstones(g) -> l1[g] = true :: else fi;
#ifdef NO_AGE_BOUND
          accept();
#else
          if :: askedBefore && late :: else -> accept() fi;
#endif
          askedBefore = false
        }
     fi;
     v = 0
  od
}

init { atomic { connected[0] = true; connected[1] = true; run Gateway(0, signal0); run Gateway(1, signal1) } }
