/*
 * What an auth server remembers: the configuration it verifies by, and the key it signs by. One change replaces the
 * configuration and forbids the key. The auth server hears of it by Resolve alone.
 */
bool committed = false, late = false;
bool isUnderWay = false, askedBefore = false;

#ifdef REACH
#define accept(isBad) assert(false)
#else
#define accept(isBad) assert(!(late && (isBad)))
#endif

active proctype Identity() { committed = true }

active proctype Clock() {
end:
  atomic {
    committed -> late = true
#ifdef REACH_LATE
    ; if :: isUnderWay && askedBefore -> assert(false) :: else fi
#endif
  }
}

active proctype AuthServer() {
  byte count = 0;
  bool isConfigured = false, hasNewKey = false; /* by the change */
  bool isOfOldKeys, verifiedByOld, isStale, mustBeNew;
end:
  do
  :: count < 4 ->
     count++;
     /* a token that only the old configuration verifies, or one that both do */
     if :: isOfOldKeys = true :: isOfOldKeys = false fi;
     atomic { isUnderWay = true; askedBefore = !committed };
     verifiedByOld = !isConfigured;
     /* Resolve, in one snapshot */
     atomic {
       mustBeNew = committed;
#ifdef ANY_REVISION
       isStale = false
#else
       isStale = committed && verifiedByOld
#endif
     };
     if
     :: isStale -> isConfigured = true
     :: !isStale && isOfOldKeys && !verifiedByOld /* refused */
     :: !isStale && !(isOfOldKeys && !verifiedByOld) ->
#ifndef ANY_KEY
        if :: mustBeNew -> hasNewKey = true :: else fi;
#endif
        atomic {
          /* the age bound is no longer than D */
          if
          :: askedBefore && late
          :: else -> accept(isOfOldKeys || !hasNewKey)
          fi
        }
     fi;
     atomic { isUnderWay = false; askedBefore = false }
  od
}
