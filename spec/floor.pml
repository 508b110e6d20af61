/*
 * Start-up in the middle and the end of tombstones. Change 1 revokes, change 2 concerns something else. L2 holds an entry
 * read before the revocation (asOf 0), as long as an entry can live. A gateway begins at any time: it loads the history
 * that identity still keeps, and drops tombstones when they are older than any entry can be, but entries may be written
 * again by slow gateways at any time (their life counts from the exchange, so `life` ends once for all).
 */
byte db = 0, oldest = 0;  /* changes up to `oldest` are no longer kept */
bool late = false, fresh = false, pre = false, loaded = false;
byte applied = 0, floor = 0;
bool tombstone = false;
bool l2has = true;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif
#ifdef NO_FLOOR
#define isAboveFloor true
#else
#define isAboveFloor (floor == 0)
#endif
#ifdef FRESH_BEFORE_LOADED
#define isReady true
#else
#define isReady loaded
#endif

active proctype Identity() {
  db = 1; db = 2;
  /* keeps no more than it must */
  if :: oldest = 1 :: oldest = 2 :: skip fi
}

active proctype Clock() {
end:
  atomic {
    db >= 1 && !(fresh && pre) -> late = true
#ifdef REACH_LATE
    ; assert(false)
#endif
  }
}

active proctype Gateway() {
  byte S, base, count = 0; bool before, sawR;
#ifdef FRESH_BEFORE_LOADED
  fresh = true; pre = false;
#endif
end:
  do
  :: count < 3 ->
     count++;
     before = (db < 1);
     atomic {
       S = db;
       /* the history of the longest life, or what is kept of it: (base, S] */
       if
       :: !loaded -> if :: base = oldest :: S > oldest -> base = S fi
       :: loaded && applied >= oldest -> base = applied
       :: loaded && applied < oldest -> base = S
       fi;
       sawR = (base < 1 && S >= 1)
     };
     atomic {
       if
       :: !loaded || (loaded && base > applied) -> tombstone = sawR; floor = base; loaded = true; fresh = false
       :: else -> if :: sawR -> tombstone = true :: else fi
       fi;
       applied = S;
       if :: before && late :: else -> fresh = true; pre = before fi;
       S = 0; base = 0; before = false; sawR = false
     }
  /* retention: the tombstone of change 1 is dropped */
  :: atomic { tombstone ->
       tombstone = false;
#ifndef DROP_KEEPS_FLOOR
       if :: floor < 1 -> floor = 1 :: else fi
#endif
     }
  :: fresh -> fresh = false
  :: atomic { l2has && isReady && fresh && !tombstone && isAboveFloor -> accept() }
  od
}
