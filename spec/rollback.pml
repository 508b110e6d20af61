/*
 * A history that goes back under the same epoch (commits lost by the storage, a snapshot restored unseen): three changes
 * are applied, identity is back at one and commits the revocation as its second. What identity says below what was known
 * when it was asked proves nothing; the model ends before the new history has grown beyond the lost one.
 */
byte db = 3;
bool committed = false, late = false, fresh = true, pre = true;
byte applied = 3;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

active proctype Identity() {
  db = 1;
  atomic { db = 2; committed = true }
}

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
     before = !committed; S = db;
     atomic {
       if
#ifndef GONE_BACK_GRANTS
       :: S < applied
       :: S >= applied -> if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi
#else
       :: true -> if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi
#endif
       fi;
       S = 0; before = false
     }
  od
}

/* Exchanges of other credentials: their grants are watermarks, too. */
active proctype Exchanges() {
  byte asOf, count = 0; bool before;
end:
  do
  :: count < 2 ->
     count++;
     before = !committed; asOf = db;
     atomic {
       if
#ifndef OLD_GRANT_RAISES_FRESHNESS
       :: asOf < applied
       :: asOf >= applied -> if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi
#else
       :: true -> if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi
#endif
       fi;
       asOf = 0; before = false
     }
  od
}

active proctype Gateway() {
end:
  do
  :: fresh -> fresh = false
  :: atomic { fresh -> accept() } /* an entry read at 3, in the lost history */
  od
}
