/*
 * Signals only take away. Two changes, one of which (R) revokes; signals are lost, repeated, reordered and forged. Only
 * identity's watermark raises `applied`; everything below it is believed to have been seen.
 */
byte R = 1, db = 0;
bool late = false, fresh = false, pre = false;
byte applied = 0;
bool tombstone = false;
byte asOf = 0;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

proctype Identity() { do :: db < 2 -> db++ :: db == 2 -> break od }

proctype Clock() {
end:
  atomic {
    db >= R && !(fresh && pre) -> late = true
#ifdef REACH_LATE
    ; assert(false)
#endif
  }
}

proctype Signals() {
  byte seq, count = 0; bool revokes;
end:
  do
  :: count < 4 ->
     count++;
     atomic {
       if
       :: db >= 1 -> seq = 1; revokes = (R == 1)
       :: db >= 2 -> seq = 2; revokes = (R == 2)
       :: seq = 1; revokes = false /* forged */
       :: seq = 2; revokes = false
       :: skip
       fi;
#ifdef SIGNAL_RAISES_APPLIED
       if :: seq == applied + 1 -> applied = seq :: else fi;
#endif
       if :: revokes -> tombstone = true :: else fi;
       seq = 0; revokes = false
     }
  od
}

proctype Gateway() {
  bool askedBefore; byte S, v, watermarks = 0, exchanges = 0;
end:
  do
  :: watermarks < 3 ->
     watermarks++;
     askedBefore = (db < R);
     S = db;
     atomic {
       /* the changes in (applied, S] */
       if :: S >= R && applied < R -> tombstone = true :: else fi;
       if :: applied < S -> applied = S :: else fi;
       if
       :: askedBefore && late
       :: else -> if :: fresh && !pre :: else -> fresh = true; pre = askedBefore fi
       fi;
       askedBefore = false; S = 0
     }
  :: fresh -> fresh = false
  :: atomic { fresh && !(tombstone && asOf < R) -> accept() }
  :: exchanges < 1 ->
     exchanges++;
     atomic { askedBefore = (db < R); v = db };
     if
     :: v >= R
     :: else ->
        atomic {
          if
#ifdef NO_TOMBSTONE_ON_ARRIVAL
          :: true -> asOf = v; if :: tombstone -> assert(false) :: else fi
#else
          :: tombstone
          :: !tombstone && (fresh || !(askedBefore && late)) -> accept(); asOf = v
          :: else
#endif
          fi
        }
     fi;
     askedBefore = false; v = 0
  od
}

init {
  atomic {
    if :: R = 1 :: R = 2 fi;
    run Identity(); run Clock(); run Signals(); run Gateway()
  }
}
