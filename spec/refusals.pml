/*
 * Refusals. An auth server may tell again what it was told before (here: about a credential that never existed), so that a
 * refusal is no proof of having read anything after the question. Watermarks and signals may all be lost.
 */
bool committed = false, late = false, fresh = true, pre = true;
byte applied = 0;
bool isRemembered = false; /* a refusal that was read before the revocation */

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

inline raise(before) { if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi }

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

active proctype Watermarks() {
  byte S, count = 0; bool before;
end:
  do
  :: count < 2 ->
     count++;
     before = !committed; S = committed;
     atomic { applied = (applied < S -> S : applied); raise(before); S = 0; before = false }
  od
}

/* Of another credential. */
active proctype Exchanges() {
  byte asOf, count = 0; bool before;
end:
  do
  :: count < 3 ->
     count++;
     before = !committed;
     if
     :: asOf = committed; if :: asOf == 0 -> isRemembered = true :: else fi
     :: isRemembered -> asOf = 0
     fi;
     atomic {
#ifdef REFUSAL_IS_PROOF
       if :: applied >= asOf -> raise(before) :: else fi;
#endif
       asOf = 0; before = false
     }
  od
}

active proctype Gateway() {
end:
  do
  :: fresh -> fresh = false
  :: atomic { fresh && applied == 0 -> accept() } /* an entry of asOf 0 */
  od
}
