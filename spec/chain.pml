/*
 * The hash chain and claims. Change 1 revokes. Signals at its place may carry other content: with a chain value of their
 * own, or with the true one copied. A gateway that heard up to 1 with the chain identity has is sent nothing more: what it
 * heard is then confirmed. Claims above what identity knows are taken back.
 */
bool committed = false, late = false, fresh = false, pre = false;
byte applied = 0;
bool confirmed = false;  /* the true tombstone */
bool claimed = false;    /* a claim about the same subject, of a sequence that was never committed */
bool heard = false;      /* something at seq 1 is on the path */
bool heardIsTrue = false;
bool heardChainIsTrue = false;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

active proctype Identity() { committed = true }

active proctype Clock() {
end:
  atomic {
    committed && !(fresh && pre) -> late = true
#ifdef REACH_LATE
    ; assert(false)
#endif
  }
}

active proctype Signals() {
  byte count = 0;
end:
  do
  :: count < 3 ->
     count++;
     atomic {
       if
       :: committed && !heard && applied == 0 -> heard = true; heardIsTrue = true; heardChainIsTrue = true
       :: !heard && applied == 0 -> /* forged, with a chain of its own: it agrees with itself */
          heard = true; heardIsTrue = false; heardChainIsTrue = false
       :: committed && !heard && applied == 0 -> /* forged, with the true chain value copied */
#ifdef NO_CHAIN_AT_GATEWAY
          heard = true; heardIsTrue = false; heardChainIsTrue = true
#else
          skip /* the chain computed over its content is another */
#endif
       :: claimed = true
#ifdef CLAIMS_NOT_APART
          ; confirmed = false /* one record per subject, and the claim is newer */
#endif
       :: skip
       fi
     }
  od
}

active proctype Gateway() {
  byte count = 0, S; bool before, askedHeard, askedTrue, askedChain;
end:
  do
  :: count < 3 ->
     count++;
     atomic { before = !committed; askedHeard = heard; askedTrue = heardIsTrue; askedChain = heardChainIsTrue };
     S = committed;
     atomic {
       if
       :: S == 0
       :: S == 1 && applied == 1
       :: S == 1 && applied == 0 ->
          if
#ifdef NO_CHAIN_AT_IDENTITY
          :: askedHeard -> if :: askedTrue -> confirmed = true :: else fi
#else
          :: askedHeard && askedChain -> if :: askedTrue -> confirmed = true :: else fi
          :: askedHeard && !askedChain -> confirmed = true /* the change is sent */
#endif
          :: !askedHeard -> confirmed = true
          fi;
          applied = 1; heard = false
       fi;
       claimed = false;
       if :: before && late :: else -> fresh = true; pre = before fi;
       S = 0; before = false; askedHeard = false; askedTrue = false; askedChain = false
     }
  :: fresh -> fresh = false
  :: atomic { fresh && !confirmed && !claimed && !(heard && heardIsTrue) -> accept() }
  od
}
