# Restarts the agent, and reports the state of its unit until the connection is closed.
lock 1
systemctl daemon-reload
systemctl reset-failed "$unit" 2> /dev/null
systemctl enable --quiet "$unit" 2> /dev/null || answer failed enable
if printed=$(systemctl restart "$unit" 2>&1); then answer started; else answer failed "$(line "$printed")"; exit 1; fi
exec 9>&-
while answer unit "$(show ActiveState)" "$(show NRestarts)"; do sleep 0.5; done
